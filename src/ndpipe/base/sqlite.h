// A thin wrapper of SQLite: durable transactions, typed binding, schema migrations, errors as
// values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ndpipe/base/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace ndpipe::sqlite {

// One compiled statement. Values are bound in order with Bind(a, b, ...); null is std::nullopt.
// Text and blobs are copied. Used by the thread that uses its Database.
class Statement {
 public:
  explicit Statement(sqlite3_stmt* statement) : statement_(statement) {}
  Statement(Statement&& other) noexcept;
  Statement& operator=(Statement&&) = delete;
  ~Statement();

  // Resets the statement, then binds the arguments to ?1, ?2, ... .
  template <typename... Args>
  void Bind(const Args&... args) {
    Reset();
    int index = 0;
    (BindOne(++index, args), ...);
  }

  // True: a row is there. False: done. Errors: kResourceExhausted (disk full), kAborted (busy),
  // kDataLoss (corrupt file), kAlreadyExists (a UNIQUE or PRIMARY KEY constraint),
  // kFailedPrecondition (any other constraint).
  Result<bool> Step();
  void Reset();

  int64_t Int(int column) const;
  double Real(int column) const;
  std::string Text(int column) const;
  std::span<const uint8_t> Blob(int column) const;  // valid until the next Step() or Reset()
  bool IsNull(int column) const;

 private:
  void BindOne(int index, int64_t value);
  void BindOne(int index, int value) { BindOne(index, static_cast<int64_t>(value)); }
  void BindOne(int index, uint32_t value) { BindOne(index, static_cast<int64_t>(value)); }
  void BindOne(int index, bool value) { BindOne(index, static_cast<int64_t>(value)); }
  void BindOne(int index, double value);
  void BindOne(int index, std::string_view value);
  void BindOne(int index, const std::string& value) { BindOne(index, std::string_view(value)); }
  void BindOne(int index, const char* value) { BindOne(index, std::string_view(value)); }
  void BindOne(int index, std::span<const uint8_t> value);
  void BindOne(int index, std::nullopt_t);
  template <typename T>
  void BindOne(int index, const std::optional<T>& value) {
    if (value) {
      BindOne(index, *value);
    } else {
      BindOne(index, std::nullopt);
    }
  }

  sqlite3_stmt* statement_;
};

// One step of a schema's history: the SQL that leads from version i to i + 1. Never edited once
// released.
using Migrations = std::span<const char* const>;

// One connection to one database file in WAL mode with synchronous=FULL: a committed transaction
// survives kill -9 and power loss. One thread at a time; owners guard it with a mutex or open one
// per thread.
class Database {
 public:
  enum class Mode { kReadWrite, kReadOnly };

  // Opens, creating the file in kReadWrite mode, and brings the schema up to date.
  // kFailedPrecondition when the file was written by a newer program (its user_version exceeds the
  // number of migrations); kDataLoss when it is no database or is damaged.
  static Result<Database> Open(const std::filesystem::path& path, Migrations migrations,
                               Mode mode = Mode::kReadWrite);
  Database(Database&&) noexcept;
  Database& operator=(Database&&) noexcept;
  ~Database();

  // Runs one or more statements that return no rows and take no arguments.
  Status Execute(const std::string& sql);

  // Runs one statement with arguments to its end; its compiled form is kept for the next call with
  // the same text.
  template <typename... Args>
  Status Run(std::string_view sql, const Args&... args) {
    NDP_ASSIGN(Statement * statement, Cached(sql));
    statement->Bind(args...);
    return Finish(*statement);
  }

  // Calls `row` for each result row. Row must not use this database.
  template <typename Row, typename... Args>
  Status Query(std::string_view sql, Row&& row, const Args&... args) {
    NDP_ASSIGN(Statement * statement, Cached(sql));
    statement->Bind(args...);
    while (true) {
      auto stepped = statement->Step();
      if (!stepped || !*stepped) {
        statement->Reset();
        if (!stepped) return std::unexpected(std::move(stepped).error());
        return {};
      }
      row(*statement);
    }
  }

  // The first column of the first row as an integer; nothing when there is no row or the value is
  // null.
  template <typename... Args>
  Result<std::optional<int64_t>> QueryInt(std::string_view sql, const Args&... args) {
    std::optional<int64_t> value;
    bool first = true;
    NDP_RETURN_IF_ERROR(Query(
        sql,
        [&](const Statement& row) {
          if (first && !row.IsNull(0)) value = row.Int(0);
          first = false;
        },
        args...));
    return value;
  }

  // A compiled statement of the caller's own, for result rows that are read while other statements
  // run.
  Result<Statement> Prepare(std::string_view sql);

  int64_t LastInsertRowid() const;
  int64_t Changes() const;  // rows changed by the last statement

 private:
  explicit Database(sqlite3* db) : db_(db) {}
  Result<Statement*> Cached(std::string_view sql);
  Status Finish(Statement& statement);
  Status Migrate(const std::filesystem::path& path, Migrations migrations, Mode mode);

  sqlite3* db_ = nullptr;
  std::unordered_map<std::string, std::unique_ptr<Statement>> statements_;
};

// A transaction: BEGIN IMMEDIATE at its start, ROLLBACK at the end of its life unless committed.
class Transaction {
 public:
  static Result<Transaction> Begin(Database& db);
  Transaction(Transaction&& other) noexcept : db_(std::exchange(other.db_, nullptr)) {}
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();
  Status Commit();

 private:
  explicit Transaction(Database* db) : db_(db) {}
  Database* db_;
};

}  // namespace ndpipe::sqlite
