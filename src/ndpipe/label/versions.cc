// Model versions and their states.
#include "ndpipe/base/clock.h"
#include "ndpipe/label/impl.h"
#include "ndpipe/label/version_table.h"

namespace ndpipe::label {
namespace {

std::unexpected<Error> NoSuchVersion(int64_t number) {
  return Fail(ErrorCode::kNotFound, "there is no model version " + std::to_string(number) +
                                        "; 'ndpipe models' lists those there are");
}

constexpr std::string_view kColumns =
    "SELECT number, backbone, cut, tail, state, created_us, job, base, delta_bits, complete, "
    "sent_bytes, full_sends, delta_sends FROM version ";

// The row without its classes.
Result<ModelVersion> ReadVersionRow(const sqlite::Statement& row) {
  ModelVersion version;
  version.number = row.Int(0);
  NDP_ASSIGN(version.backbone, Hash256::FromBytes(row.Blob(1)));
  version.cut = row.Text(2);
  NDP_ASSIGN(version.tail, Hash256::FromBytes(row.Blob(3)));
  version.state = static_cast<VersionState>(row.Int(4));
  version.created_us = row.Int(5);
  version.job = row.Int(6);
  version.base = row.Int(7);
  version.delta_bits = static_cast<int>(row.Int(8));
  version.is_complete = row.Int(9) != 0;
  version.sent_bytes = row.Int(10);
  version.full_sends = row.Int(11);
  version.delta_sends = row.Int(12);
  return version;
}

Status ReadClasses(sqlite::Database& db, ModelVersion& version) {
  return db.Query(
      "SELECT label FROM version_class WHERE version = ?1 ORDER BY class_index",
      [&](const sqlite::Statement& row) { version.classes.push_back(row.Int(0)); }, version.number);
}

template <typename... Args>
Result<std::vector<ModelVersion>> ReadVersions(sqlite::Database& db, std::string_view condition,
                                               const Args&... args) {
  std::vector<ModelVersion> versions;
  std::optional<Error> damage;
  NDP_RETURN_IF_ERROR(db.Query(
      std::string(kColumns) + std::string(condition),
      [&](const sqlite::Statement& row) {
        auto version = ReadVersionRow(row);
        if (version) {
          versions.push_back(*std::move(version));
        } else if (!damage) {
          damage = std::move(version).error();
        }
      },
      args...));
  if (damage) return std::unexpected(*std::move(damage));
  for (auto& version : versions) NDP_RETURN_IF_ERROR(ReadClasses(db, version));
  return versions;
}

}  // namespace

std::string_view VersionStateName(VersionState state) {
  switch (state) {
    case VersionState::kStaged:
      return "staged";
    case VersionState::kDistributed:
      return "distributed";
    case VersionState::kServing:
      return "serving";
    case VersionState::kRetired:
      return "retired";
  }
  return "unknown";
}

bool IsLegal(VersionState from, VersionState to) {
  switch (to) {
    case VersionState::kStaged:
      return false;
    case VersionState::kDistributed:
      return from == VersionState::kStaged;
    case VersionState::kServing:
      return from == VersionState::kDistributed || from == VersionState::kRetired;
    case VersionState::kRetired:
      return from == VersionState::kServing || from == VersionState::kDistributed;
  }
  return false;
}

Result<VersionRow> LoadVersion(sqlite::Database& db, int64_t number) {
  std::optional<VersionRow> version;
  std::optional<Error> damage;
  NDP_RETURN_IF_ERROR(db.Query(
      "SELECT state, backbone, outcomes, present_labelled, present_failed, indexed_to, "
      "complete FROM version WHERE number = ?1",
      [&](const sqlite::Statement& row) {
        auto backbone = Hash256::FromBytes(row.Blob(1));
        if (!backbone) {
          damage = std::move(backbone).error();
          return;
        }
        version = VersionRow{.number = number,
                             .state = static_cast<VersionState>(row.Int(0)),
                             .backbone = *backbone,
                             .outcomes = row.Int(2),
                             .present_labelled = row.Int(3),
                             .present_failed = row.Int(4),
                             .indexed_to = row.Int(5),
                             .is_complete = row.Int(6) != 0};
      },
      number));
  if (damage) return std::unexpected(*std::move(damage));
  if (!version) return NoSuchVersion(number);
  return *version;
}

Status MoveVersion(sqlite::Database& db, const VersionRow& version, VersionState to) {
  if (version.state == to) return {};
  if (!IsLegal(version.state, to)) {
    return Fail(ErrorCode::kFailedPrecondition,
                "model version " + std::to_string(version.number) + " is " +
                    std::string(VersionStateName(version.state)) + " and cannot become " +
                    std::string(VersionStateName(to)) +
                    (version.state == VersionState::kStaged
                         ? ": distribute it to the PipeStores first, by a relabel"
                         : ""));
  }
  return db.Run("UPDATE version SET state = ?2 WHERE number = ?1", version.number,
                static_cast<int>(to));
}

Result<ReaderVersions> LoadReaderVersions(sqlite::Database& db) {
  ReaderVersions versions;
  NDP_RETURN_IF_ERROR(
      db.Query("SELECT serving, previous FROM meta", [&](const sqlite::Statement& row) {
        if (!row.IsNull(0)) versions.serving = row.Int(0);
        if (!row.IsNull(1)) versions.previous = row.Int(1);
      }));
  return versions;
}

Result<int64_t> LabelDatabase::CreateVersion(const ModelVersion& version) {
  if (version.classes.empty()) {
    return Fail(ErrorCode::kInvalidArgument, "a model version needs at least one class");
  }
  return impl_->Write([&](sqlite::Database& db) -> Result<int64_t> {
    NDP_RETURN_IF_ERROR(db.Run(
        "INSERT INTO version(backbone, cut, tail, state, created_us, job, base, delta_bits) VALUES "
        "(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        std::span<const uint8_t>(version.backbone.bytes), version.cut,
        std::span<const uint8_t>(version.tail.bytes), static_cast<int>(VersionState::kStaged),
        version.created_us != 0 ? version.created_us : NowUtcUs(), version.job, version.base,
        version.delta_bits));
    const int64_t number = db.LastInsertRowid();
    int64_t class_index = 0;
    for (const LabelId label : version.classes) {
      NDP_ASSIGN(const auto known, db.QueryInt("SELECT 1 FROM vocabulary WHERE id = ?1", label));
      if (!known) {
        return Fail(ErrorCode::kInvalidArgument,
                    "class " + std::to_string(class_index) + " of the model version is label " +
                        std::to_string(label) + ", which the vocabulary does not have");
      }
      NDP_RETURN_IF_ERROR(
          db.Run("INSERT INTO version_class VALUES (?1, ?2, ?3)", number, class_index++, label));
    }
    return number;
  });
}

Result<ModelVersion> LabelDatabase::GetVersion(int64_t number) {
  return impl_->Read([&](sqlite::Database& db) -> Result<ModelVersion> {
    NDP_ASSIGN(auto versions, ReadVersions(db, "WHERE number = ?1", number));
    if (versions.empty()) return NoSuchVersion(number);
    return std::move(versions.front());
  });
}

Result<std::vector<ModelVersion>> LabelDatabase::ListVersions() {
  return impl_->Read([&](sqlite::Database& db) { return ReadVersions(db, "ORDER BY number"); });
}

// A version that serves or served has been distributed: there is nothing to do for it, so that a
// relabel may be repeated or rolled back with the same steps.
Status LabelDatabase::MarkDistributed(int64_t number) {
  return impl_->Write([&](sqlite::Database& db) -> Status {
    NDP_ASSIGN(const VersionRow version, LoadVersion(db, number));
    if (version.state != VersionState::kStaged) return {};
    return MoveVersion(db, version, VersionState::kDistributed);
  });
}

Result<std::optional<int64_t>> LabelDatabase::ServingVersion() {
  return impl_->Read([&](sqlite::Database& db) -> Result<std::optional<int64_t>> {
    NDP_ASSIGN(const auto versions, LoadReaderVersions(db));
    return versions.serving;
  });
}

Result<std::optional<int64_t>> LabelDatabase::PreviousVersion() {
  return impl_->Read([&](sqlite::Database& db) -> Result<std::optional<int64_t>> {
    NDP_ASSIGN(const auto versions, LoadReaderVersions(db));
    return versions.previous;
  });
}

Status LabelDatabase::CountSent(const Hash256& tail, int64_t num_bytes, bool is_delta) {
  return impl_->Write([&](sqlite::Database& db) -> Status {
    return db.Run(
        "UPDATE version SET sent_bytes = sent_bytes + ?2, full_sends = full_sends + ?3, "
        "delta_sends = delta_sends + ?4 WHERE number = (SELECT max(number) FROM version WHERE tail "
        "= ?1)",
        std::span<const uint8_t>(tail.bytes), num_bytes, is_delta ? 0 : 1, is_delta ? 1 : 0);
  });
}

}  // namespace ndpipe::label
