// Switching readers to another version, and dropping the outcomes that nobody can come back to.
#include "ndpipe/base/log.h"
#include "ndpipe/label/impl.h"
#include "ndpipe/label/version_table.h"

namespace ndpipe::label {
namespace {

constexpr int64_t kPruneRows = 20'000;  // a transaction: other writers wait for one, not for all

// The numbers of the present stores as SQL text: "1,2,3".
Result<std::string> StoreNumbers(sqlite::Database& db, const std::set<std::string>& stores) {
  std::string list;
  for (const auto& store : stores) {
    NDP_ASSIGN(const auto number, db.QueryInt("SELECT number FROM store WHERE id = ?1", store));
    if (!number) continue;
    if (!list.empty()) list += ',';
    list += std::to_string(*number);
  }
  return list;
}

// kFailedPrecondition when a photo that lies in a present store has no outcome in `version`.
Status CheckCoverage(sqlite::Database& db, int64_t version,
                     const std::set<std::string>& present_stores) {
  NDP_ASSIGN(const std::string stores, StoreNumbers(db, present_stores));
  int64_t uncovered = 0;
  // Not db.Query, which keeps the compiled form of each text: this one differs from call to call.
  NDP_ASSIGN(auto count,
             db.Prepare("SELECT count(*) FROM photo p WHERE present > 0 AND NOT EXISTS (SELECT 1 "
                        "FROM outcome o WHERE o.version = ?1 AND o.photo = p.number) AND EXISTS "
                        "(SELECT 1 FROM replica r WHERE r.photo = p.number AND r.present > 0 AND "
                        "r.store IN (" +
                        stores + "))"));
  count.Bind(version);
  NDP_ASSIGN(const bool row, count.Step());
  if (row) uncovered = count.Int(0);
  if (uncovered == 0) return {};
  return Fail(ErrorCode::kFailedPrecondition,
              "readers cannot switch to model version " + std::to_string(version) + ": " +
                  std::to_string(uncovered) +
                  " photos of present stores have no outcome in it; relabel them first");
}

// Pending photos keep the version that readers saw; those that `version` covers stop pending.
Status MovePins(sqlite::Database& db, int64_t version, std::optional<int64_t> serving,
                bool all_covered) {
  NDP_RETURN_IF_ERROR(
      db.Run("UPDATE photo SET pinned = NULL WHERE pinned IS NOT NULL AND EXISTS (SELECT 1 FROM "
             "outcome o WHERE o.version = ?1 AND o.photo = photo.number)",
             version));
  if (!all_covered && serving) {
    NDP_RETURN_IF_ERROR(
        db.Run("UPDATE photo SET pinned = ?2 WHERE deleted = 0 AND pinned IS NULL AND NOT EXISTS "
               "(SELECT 1 FROM outcome o WHERE o.version = ?1 AND o.photo = photo.number) AND "
               "EXISTS (SELECT 1 FROM outcome o WHERE o.version = ?2 AND o.photo = photo.number)",
               version, *serving));
  }
  return db.Execute(
      "UPDATE meta SET (pinned_labelled, pinned_failed) = (SELECT count(o.label), count(*) - "
      "count(o.label) FROM photo p CROSS JOIN outcome o ON o.version = p.pinned AND o.photo = "
      "p.number WHERE p.pinned IS NOT NULL AND p.present > 0)");
}

// A backbone has one serving version; `version` becomes it.
Status MoveStates(sqlite::Database& db, const VersionRow& version) {
  NDP_RETURN_IF_ERROR(
      db.Run("UPDATE version SET state = ?1 WHERE state = ?2 AND backbone = ?3 AND number <> ?4",
             static_cast<int>(VersionState::kRetired), static_cast<int>(VersionState::kServing),
             std::span<const uint8_t>(version.backbone.bytes), version.number));
  return SetVersionState(db, version.number, VersionState::kServing);
}

Result<SwitchReport> Report(sqlite::Database& db, int64_t number) {
  NDP_ASSIGN(const VersionRow version, LoadVersion(db, number));
  NDP_ASSIGN(const auto photos, db.QueryInt("SELECT photos FROM meta"));
  SwitchReport report{.labelled = version.present_labelled, .failed = version.present_failed};
  report.pending = photos.value_or(0) - report.labelled - report.failed;
  return report;
}

Result<SwitchReport> SwitchReaders(sqlite::Database& db, int64_t number,
                                   const std::set<std::string>& present_stores) {
  NDP_ASSIGN(const VersionRow version, LoadVersion(db, number));
  NDP_ASSIGN(const ReaderVersions readers, LoadReaderVersions(db));
  if (readers.serving == number) return Report(db, number);
  if (version.state == VersionState::kStaged) {
    return Fail(ErrorCode::kFailedPrecondition,
                "model version " + std::to_string(number) + " is " +
                    std::string(VersionStateName(version.state)) + " and cannot become " +
                    std::string(VersionStateName(VersionState::kServing)) +
                    ": distribute it to the PipeStores first");
  }
  // With an outcome of every known photo nobody has to be looked for: the switch is then a change
  // of a pointer, whatever the number of photos.
  NDP_ASSIGN(const auto known, db.QueryInt("SELECT known FROM meta"));
  const bool all_covered = version.outcomes == known.value_or(0);
  if (!all_covered) NDP_RETURN_IF_ERROR(CheckCoverage(db, number, present_stores));
  NDP_RETURN_IF_ERROR(MovePins(db, number, readers.serving, all_covered));
  NDP_RETURN_IF_ERROR(MoveStates(db, version));
  NDP_RETURN_IF_ERROR(db.Run("UPDATE meta SET previous = serving, serving = ?1", number));
  return Report(db, number);
}

struct PruneCursor {
  int64_t version = 0;
  int64_t photo = 0;
};

struct PrunedRow {
  int64_t photo = 0;
  bool present = false;
  bool labelled = false;
};

// The next retired version above the cursor's that readers neither see nor saw last.
Result<std::optional<int64_t>> NextPrunable(sqlite::Database& db, int64_t above) {
  return db.QueryInt(
      "SELECT number FROM version, meta WHERE number > ?1 AND state = ?2 AND outcomes > 0 AND "
      "number IS NOT meta.serving AND number IS NOT meta.previous ORDER BY number LIMIT 1",
      above, static_cast<int>(VersionState::kRetired));
}

Status DeletePruned(sqlite::Database& db, int64_t version, const std::vector<PrunedRow>& rows) {
  int64_t labelled = 0;
  int64_t failed = 0;
  NDP_ASSIGN(auto erase, db.Prepare("DELETE FROM outcome WHERE version = ?1 AND photo = ?2"));
  for (const PrunedRow& row : rows) {
    erase.Bind(version, row.photo);
    NDP_RETURN_IF_ERROR(erase.Step());
    if (row.present) ++(row.labelled ? labelled : failed);
  }
  return db.Run(
      "UPDATE version SET outcomes = outcomes - ?2, present_labelled = present_labelled - ?3, "
      "present_failed = present_failed - ?4 WHERE number = ?1",
      version, static_cast<int64_t>(rows.size()), labelled, failed);
}

// Deletes at most kPruneRows outcomes and moves the cursor. False: nothing is left to prune.
Result<bool> PruneStep(sqlite::Database& db, PruneCursor& cursor) {
  NDP_ASSIGN(const auto version, NextPrunable(db, cursor.version - 1));
  if (!version) return false;
  if (*version != cursor.version) cursor = {.version = *version};
  std::vector<PrunedRow> rows;
  NDP_RETURN_IF_ERROR(db.Query(
      "SELECT o.photo, p.present, o.label IS NOT NULL FROM outcome o CROSS JOIN photo p ON "
      "p.number = o.photo WHERE o.version = ?1 AND o.photo > ?2 AND p.pinned IS NOT o.version "
      "ORDER BY o.photo LIMIT ?3",
      [&](const sqlite::Statement& row) {
        rows.push_back(
            {.photo = row.Int(0), .present = row.Int(1) > 0, .labelled = row.Int(2) != 0});
      },
      *version, cursor.photo, kPruneRows));
  if (rows.empty()) {
    ++cursor.version;
    cursor.photo = 0;
    return true;
  }
  NDP_RETURN_IF_ERROR(DeletePruned(db, *version, rows));
  cursor.photo = rows.back().photo;
  return true;
}

}  // namespace

Result<SwitchReport> LabelDatabase::Switch(int64_t version,
                                           const std::set<std::string>& present_stores) {
  NDP_ASSIGN(const SwitchReport report, impl_->Write([&](sqlite::Database& db) {
    return SwitchReaders(db, version, present_stores);
  }));
  PruneCursor cursor;
  while (true) {
    const auto more = impl_->Write([&](sqlite::Database& db) { return PruneStep(db, cursor); });
    // The switch stands; what is not pruned now is pruned after the next one.
    if (!more) spdlog::warn("old outcomes were not dropped: {}", more.error().message);
    if (!more || !*more) return report;
  }
}

}  // namespace ndpipe::label
