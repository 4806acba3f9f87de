#include "ndpipe/base/sqlite.h"

#include <sqlite3.h>

#include <string>

namespace ndpipe::sqlite {
namespace {

constexpr int kBusyTimeoutMs = 30'000;

std::unexpected<Error> FailSqlite(sqlite3* db, int code, std::string_view what) {
  ErrorCode error = ErrorCode::kInternal;
  switch (code & 0xff) {
    case SQLITE_FULL:
      error = ErrorCode::kResourceExhausted;
      break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      error = ErrorCode::kAborted;
      break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      error = ErrorCode::kDataLoss;
      break;
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
      error = ErrorCode::kPermissionDenied;
      break;
    case SQLITE_CONSTRAINT:
      error = code == SQLITE_CONSTRAINT_UNIQUE || code == SQLITE_CONSTRAINT_PRIMARYKEY
                  ? ErrorCode::kAlreadyExists
                  : ErrorCode::kFailedPrecondition;
      break;
    default:
      break;
  }
  const char* file = sqlite3_db_filename(db, "main");
  std::string message(what);
  if (file != nullptr && *file != '\0') message += std::string(" (database ") + file + ")";
  message += ": ";
  message += code == SQLITE_FULL ? "the disk is full" : sqlite3_errmsg(db);
  return Fail(error, std::move(message));
}

}  // namespace

Statement::Statement(Statement&& other) noexcept
    : statement_(std::exchange(other.statement_, nullptr)) {}

Statement::~Statement() { sqlite3_finalize(statement_); }

Result<bool> Statement::Step() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  sqlite3* db = sqlite3_db_handle(statement_);
  auto error = FailSqlite(db, sqlite3_extended_errcode(db), "database step failed");
  sqlite3_reset(statement_);
  return error;
}

void Statement::Reset() {
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

int64_t Statement::Int(int column) const { return sqlite3_column_int64(statement_, column); }
double Statement::Real(int column) const { return sqlite3_column_double(statement_, column); }

std::string Statement::Text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  if (text == nullptr) return {};
  return {text, static_cast<size_t>(sqlite3_column_bytes(statement_, column))};
}

std::span<const uint8_t> Statement::Blob(int column) const {
  const auto* blob = static_cast<const uint8_t*>(sqlite3_column_blob(statement_, column));
  return {blob, static_cast<size_t>(sqlite3_column_bytes(statement_, column))};
}

bool Statement::IsNull(int column) const {
  return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

void Statement::BindOne(int index, int64_t value) {
  NDP_CHECK(sqlite3_bind_int64(statement_, index, value) == SQLITE_OK);
}
void Statement::BindOne(int index, double value) {
  NDP_CHECK(sqlite3_bind_double(statement_, index, value) == SQLITE_OK);
}
void Statement::BindOne(int index, std::string_view value) {
  const char* text = value.data() == nullptr ? "" : value.data();
  NDP_CHECK(sqlite3_bind_text64(statement_, index, text, value.size(), SQLITE_TRANSIENT,
                                SQLITE_UTF8) == SQLITE_OK);
}
void Statement::BindOne(int index, std::span<const uint8_t> value) {
  const void* data = value.data() == nullptr ? static_cast<const void*>("") : value.data();
  NDP_CHECK(sqlite3_bind_blob64(statement_, index, data, value.size(), SQLITE_TRANSIENT) ==
            SQLITE_OK);
}
void Statement::BindOne(int index, std::nullopt_t) {
  NDP_CHECK(sqlite3_bind_null(statement_, index) == SQLITE_OK);
}

Result<Database> Database::Open(const std::filesystem::path& path, Migrations migrations,
                                Mode mode) {
  sqlite3* handle = nullptr;
  const int flags =
      SQLITE_OPEN_NOMUTEX | (mode == Mode::kReadOnly ? SQLITE_OPEN_READWRITE
                                                     : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  const int code = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  Database db(handle);
  if (code != SQLITE_OK) return FailSqlite(handle, code, "cannot open " + path.string());
  sqlite3_extended_result_codes(handle, 1);
  sqlite3_busy_timeout(handle, kBusyTimeoutMs);
  NDP_RETURN_IF_ERROR(db.Execute("PRAGMA journal_mode=WAL"));
  NDP_RETURN_IF_ERROR(db.Execute("PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON"));
  NDP_RETURN_IF_ERROR(db.Migrate(path, migrations, mode));
  if (mode == Mode::kReadOnly) NDP_RETURN_IF_ERROR(db.Execute("PRAGMA query_only=ON"));
  return db;
}

Database::Database(Database&& other) noexcept
    : db_(std::exchange(other.db_, nullptr)), statements_(std::move(other.statements_)) {}

Database& Database::operator=(Database&& other) noexcept {
  std::swap(db_, other.db_);
  std::swap(statements_, other.statements_);
  return *this;
}

Database::~Database() {
  statements_.clear();
  sqlite3_close_v2(db_);
}

Status Database::Execute(const std::string& sql) {
  const int code = sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return FailSqlite(db_, code, "database statement failed");
  return {};
}

Result<Statement> Database::Prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  const int code =
      sqlite3_prepare_v2(db_, sql.data(), static_cast<int>(sql.size()), &statement, nullptr);
  if (code != SQLITE_OK) {
    return FailSqlite(db_, code, "cannot compile '" + std::string(sql) + "'");
  }
  return Statement(statement);
}

Result<Statement*> Database::Cached(std::string_view sql) {
  const std::string key(sql);
  auto found = statements_.find(key);
  if (found == statements_.end()) {
    NDP_ASSIGN(Statement statement, Prepare(sql));
    found = statements_.emplace(key, std::make_unique<Statement>(std::move(statement))).first;
  }
  return found->second.get();
}

Status Database::Finish(Statement& statement) {
  auto stepped = statement.Step();
  while (stepped && *stepped) stepped = statement.Step();
  statement.Reset();
  if (!stepped) return std::unexpected(std::move(stepped).error());
  return {};
}

Status Database::Migrate(const std::filesystem::path& path, Migrations migrations, Mode mode) {
  NDP_ASSIGN(const auto current, QueryInt("PRAGMA user_version"));
  const auto known = static_cast<int64_t>(migrations.size());
  if (current.value_or(0) > known) {
    return Fail(ErrorCode::kFailedPrecondition,
                path.string() + " was written by a newer ndpipe (schema " +
                    std::to_string(*current) + ", this program knows " + std::to_string(known) +
                    "): install that version or a later one");
  }
  if (mode == Mode::kReadOnly || current.value_or(0) == known) return {};
  NDP_ASSIGN(auto transaction, Transaction::Begin(*this));
  // Read again under the lock: another process may have migrated meanwhile.
  NDP_ASSIGN(const auto locked, QueryInt("PRAGMA user_version"));
  for (int64_t version = locked.value_or(0); version < known; ++version) {
    NDP_RETURN_IF_ERROR(Execute(migrations[static_cast<size_t>(version)]));
  }
  NDP_RETURN_IF_ERROR(Execute("PRAGMA user_version=" + std::to_string(known)));
  return transaction.Commit();
}

int64_t Database::LastInsertRowid() const { return sqlite3_last_insert_rowid(db_); }
int64_t Database::Changes() const { return sqlite3_changes64(db_); }

Result<Transaction> Transaction::Begin(Database& db) {
  NDP_RETURN_IF_ERROR(db.Run("BEGIN IMMEDIATE"));
  return Transaction(&db);
}

Transaction::~Transaction() {
  // After a full disk SQLite may have rolled back by itself; the second ROLLBACK is then a harmless
  // error.
  if (db_ != nullptr) (void)db_->Run("ROLLBACK");
}

Status Transaction::Commit() {
  NDP_RETURN_IF_ERROR(db_->Run("COMMIT"));
  db_ = nullptr;
  return {};
}

}  // namespace ndpipe::sqlite
