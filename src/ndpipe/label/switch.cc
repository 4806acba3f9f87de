// Switching readers to another version, and dropping the outcomes that nobody can come back to.
#include "ndpipe/label/impl.h"
#include "ndpipe/label/search_index.h"
#include "ndpipe/label/version_table.h"

namespace ndpipe::label {

// The photos without an outcome in the new version, among those up to `scanned_to`.
struct Uncovered {
  std::vector<int64_t> photos;
  int64_t scanned_to = 0;
};

namespace {

// What one transaction of a long step does: other writers wait for one, not for all.
constexpr int64_t kPruneRows = 20'000;
constexpr int64_t kIndexRows = 500'000;  // many: a run that is longer fills more of each page

Status ScanUncovered(sqlite::Database& db, const VersionRow& version, Uncovered& uncovered) {
  NDP_ASSIGN(const auto last, db.QueryInt("SELECT max(number) FROM photo"));
  NDP_ASSIGN(const auto known, db.QueryInt("SELECT known FROM meta"));
  // With an outcome of every known photo nobody has to be looked for.
  if (version.outcomes != known.value_or(0)) {
    NDP_RETURN_IF_ERROR(db.Query(
        "SELECT number FROM photo WHERE number > ?2 AND deleted = 0 AND NOT EXISTS (SELECT 1 FROM "
        "outcome o WHERE o.version = ?1 AND o.photo = photo.number)",
        [&](const sqlite::Statement& row) { uncovered.photos.push_back(row.Int(0)); },
        version.number, uncovered.scanned_to));
  }
  uncovered.scanned_to = last.value_or(0);
  return {};
}

// Those that got an outcome or were deleted since they were found.
Status DropCovered(sqlite::Database& db, int64_t version, Uncovered& uncovered) {
  std::vector<int64_t> still;
  for (const int64_t photo : uncovered.photos) {
    NDP_ASSIGN(const auto found,
               db.QueryInt("SELECT 1 FROM photo WHERE number = ?2 AND deleted = 0 AND NOT EXISTS "
                           "(SELECT 1 FROM outcome WHERE version = ?1 AND photo = ?2)",
                           version, photo));
    if (found) still.push_back(photo);
  }
  uncovered.photos = std::move(still);
  return {};
}

Result<std::set<int64_t>> StoreNumbers(sqlite::Database& db, const std::set<std::string>& stores) {
  std::set<int64_t> numbers;
  for (const auto& store : stores) {
    NDP_ASSIGN(const auto number, db.QueryInt("SELECT number FROM store WHERE id = ?1", store));
    if (number) numbers.insert(*number);
  }
  return numbers;
}

// kFailedPrecondition when a photo that lies in a present store has no outcome in `version`.
Status CheckCoverage(sqlite::Database& db, int64_t version, const Uncovered& uncovered,
                     const std::set<std::string>& present_stores) {
  NDP_ASSIGN(const auto stores, StoreNumbers(db, present_stores));
  int64_t count = 0;
  for (const int64_t photo : uncovered.photos) {
    bool lies_in_one = false;
    NDP_RETURN_IF_ERROR(db.Query(
        "SELECT store FROM replica WHERE photo = ?1 AND present > 0",
        [&](const sqlite::Statement& row) { lies_in_one |= stores.contains(row.Int(0)); }, photo));
    count += lies_in_one ? 1 : 0;
  }
  if (count == 0) return {};
  return Fail(ErrorCode::kFailedPrecondition,
              "readers cannot switch to model version " + std::to_string(version) + ": " +
                  std::to_string(count) +
                  " photos of present stores have no outcome in it; relabel them first");
}

// Pending photos keep the version that readers saw; those that `version` covers stop pending.
Status MovePins(sqlite::Database& db, int64_t version, std::optional<int64_t> serving,
                const Uncovered& uncovered) {
  NDP_RETURN_IF_ERROR(
      db.Run("UPDATE photo SET pinned = NULL WHERE pinned IS NOT NULL AND EXISTS (SELECT 1 FROM "
             "outcome o WHERE o.version = ?1 AND o.photo = photo.number)",
             version));
  if (serving) {
    for (const int64_t photo : uncovered.photos) {
      NDP_RETURN_IF_ERROR(
          db.Run("UPDATE photo SET pinned = ?1 WHERE number = ?2 AND pinned IS NULL AND EXISTS "
                 "(SELECT 1 FROM outcome WHERE version = ?1 AND photo = ?2)",
                 *serving, photo));
    }
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
  return MoveVersion(db, version, VersionState::kServing);
}

Status SetComplete(sqlite::Database& db, int64_t version, bool is_complete) {
  return db.Run("UPDATE version SET complete = ?2 WHERE number = ?1", version, is_complete);
}

Result<SwitchReport> Report(sqlite::Database& db, int64_t number) {
  NDP_ASSIGN(const VersionRow version, LoadVersion(db, number));
  NDP_ASSIGN(const auto photos, db.QueryInt("SELECT photos FROM meta"));
  SwitchReport report{.labelled = version.present_labelled, .failed = version.present_failed};
  report.pending = photos.value_or(0) - report.labelled - report.failed;
  return report;
}

// In the transaction of a switch, or of what makes one possible. `uncovered` is brought up to date.
Status CheckAndComplete(sqlite::Database& db, const VersionRow& version, Uncovered& uncovered,
                        const std::set<std::string>& present_stores) {
  if (version.state == VersionState::kStaged) {
    return Fail(
        ErrorCode::kFailedPrecondition,
        "model version " + std::to_string(version.number) +
            " is staged and cannot become serving: distribute it to the PipeStores first, by "
            "a relabel");
  }
  // Photos that came since the scan have larger numbers; no outcome was lost since.
  NDP_RETURN_IF_ERROR(DropCovered(db, version.number, uncovered));
  NDP_RETURN_IF_ERROR(ScanUncovered(db, version, uncovered));
  NDP_RETURN_IF_ERROR(CheckCoverage(db, version.number, uncovered, present_stores));
  // Outcomes that came since the index was filled.
  NDP_RETURN_IF_ERROR(ExtendIndex(db, version.number, kAllPhotos));
  return SetComplete(db, version.number, true);
}

Result<SwitchReport> SwitchReaders(sqlite::Database& db, int64_t number, Uncovered uncovered,
                                   const std::set<std::string>& present_stores) {
  NDP_ASSIGN(const VersionRow version, LoadVersion(db, number));
  NDP_ASSIGN(const ReaderVersions readers, LoadReaderVersions(db));
  if (readers.serving == number) return Report(db, number);
  NDP_RETURN_IF_ERROR(CheckAndComplete(db, version, uncovered, present_stores));
  NDP_RETURN_IF_ERROR(MovePins(db, number, readers.serving, uncovered));
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
  std::optional<LabelId> label;
};

// The next retired version above the cursor's that readers neither see nor saw last.
Result<std::optional<int64_t>> NextPrunable(sqlite::Database& db, int64_t above) {
  return db.QueryInt(
      "SELECT number FROM version, meta WHERE number > ?1 AND state = ?2 AND outcomes > 0 AND "
      "number IS NOT meta.serving AND number IS NOT meta.previous ORDER BY number LIMIT 1",
      above, static_cast<int>(VersionState::kRetired));
}

Status DeletePruned(sqlite::Database& db, const VersionRow& version,
                    const std::vector<PrunedRow>& rows) {
  int64_t labelled = 0;
  int64_t failed = 0;
  for (const PrunedRow& row : rows) {
    NDP_RETURN_IF_ERROR(
        db.Run("DELETE FROM outcome WHERE version = ?1 AND photo = ?2", version.number, row.photo));
    if (row.label && row.photo <= version.indexed_to) {
      NDP_RETURN_IF_ERROR(RemoveHit(db, version.number, *row.label, row.photo));
    }
    if (row.present) ++(row.label ? labelled : failed);
  }
  return db.Run(
      "UPDATE version SET outcomes = outcomes - ?2, present_labelled = present_labelled - ?3, "
      "present_failed = present_failed - ?4 WHERE number = ?1",
      version.number, static_cast<int64_t>(rows.size()), labelled, failed);
}

// When no photo shows the version, its index goes in sorted runs before its outcomes, not hit by
// hit with them.
Status StartPruning(sqlite::Database& db, int64_t version) {
  NDP_RETURN_IF_ERROR(SetComplete(db, version, false));
  NDP_ASSIGN(const auto shown,
             db.QueryInt("SELECT 1 FROM photo WHERE pinned = ?1 LIMIT 1", version));
  if (shown) return {};
  return AbandonIndex(db, version);
}

// Deletes at most kPruneRows rows and moves the cursor. False: nothing is left to prune.
Result<bool> PruneStep(sqlite::Database& db, PruneCursor& cursor) {
  NDP_ASSIGN(const auto number, NextPrunable(db, cursor.version - 1));
  if (!number) return false;
  if (*number != cursor.version) {
    cursor = {.version = *number};
    NDP_RETURN_IF_ERROR(StartPruning(db, *number));
  }
  NDP_ASSIGN(const VersionRow version, LoadVersion(db, *number));
  if (version.indexed_to == 0) {
    NDP_ASSIGN(const bool more, DropWaste(db, *number, kPruneRows));
    if (more) return true;
  }
  std::vector<PrunedRow> rows;
  NDP_RETURN_IF_ERROR(db.Query(
      "SELECT o.photo, p.present, o.label FROM outcome o CROSS JOIN photo p ON p.number = o.photo "
      "WHERE o.version = ?1 AND o.photo > ?2 AND p.pinned IS NOT o.version ORDER BY o.photo LIMIT "
      "?3",
      [&](const sqlite::Statement& row) {
        PrunedRow pruned{.photo = row.Int(0), .present = row.Int(1) > 0, .label = {}};
        if (!row.IsNull(2)) pruned.label = row.Int(2);
        rows.push_back(pruned);
      },
      *number, cursor.photo, kPruneRows));
  if (rows.empty()) {
    ++cursor.version;
    cursor.photo = 0;
    return true;
  }
  NDP_RETURN_IF_ERROR(DeletePruned(db, version, rows));
  cursor.photo = rows.back().photo;
  return true;
}

}  // namespace

// The long steps before readers switch, none of which holds up readers, nor writers for long: the
// search index, and the photos without an outcome. Nothing for versions that cannot be switched to.
Result<Uncovered> LabelDatabase::Impl::PrepareSwitch(int64_t number) {
  Uncovered uncovered;
  ReaderVersions readers;
  NDP_ASSIGN(const VersionRow version, Read([&](sqlite::Database& db) -> Result<VersionRow> {
               NDP_ASSIGN(readers, LoadReaderVersions(db));
               return LoadVersion(db, number);
             }));
  if (version.state == VersionState::kStaged || readers.serving == number) return uncovered;
  if (version.indexed_to == 0) {
    // What an earlier index of the version has left, if it was abandoned.
    bool more = true;
    while (more) {
      NDP_ASSIGN(more,
                 Write([&](sqlite::Database& db) { return DropWaste(db, number, kPruneRows); }));
    }
  }
  bool more = version.indexed_to != kAllPhotos;
  while (more) {
    NDP_ASSIGN(more,
               Write([&](sqlite::Database& db) { return ExtendIndex(db, number, kIndexRows); }));
  }
  NDP_RETURN_IF_ERROR(Read([&](sqlite::Database& db) -> Status {
    NDP_ASSIGN(const VersionRow current, LoadVersion(db, number));
    return ScanUncovered(db, current, uncovered);
  }));
  return uncovered;
}

Result<SwitchReport> LabelDatabase::Switch(int64_t version,
                                           const std::set<std::string>& present_stores) {
  std::lock_guard lock(impl_->switch_mutex);
  NDP_ASSIGN(Uncovered uncovered, impl_->PrepareSwitch(version));
  return impl_->Write([&](sqlite::Database& db) {
    return SwitchReaders(db, version, std::move(uncovered), present_stores);
  });
}

Result<SwitchReport> LabelDatabase::Complete(int64_t number,
                                             const std::set<std::string>& present_stores) {
  std::lock_guard lock(impl_->switch_mutex);
  NDP_ASSIGN(Uncovered uncovered, impl_->PrepareSwitch(number));
  return impl_->Write([&](sqlite::Database& db) -> Result<SwitchReport> {
    NDP_ASSIGN(const VersionRow version, LoadVersion(db, number));
    NDP_RETURN_IF_ERROR(CheckAndComplete(db, version, uncovered, present_stores));
    return Report(db, number);
  });
}

Result<SwitchReport> LabelDatabase::SwitchAtOnce(int64_t number) {
  std::lock_guard lock(impl_->switch_mutex);
  NDP_ASSIGN(const VersionRow version,
             impl_->Read([&](sqlite::Database& db) { return LoadVersion(db, number); }));
  // What is complete stays so as long as no switch begins and nothing is dropped.
  if (!version.is_complete) {
    return Fail(ErrorCode::kFailedPrecondition,
                "model version " + std::to_string(number) +
                    " has no complete set of labels to switch to: relabel with it first");
  }
  NDP_ASSIGN(Uncovered uncovered, impl_->PrepareSwitch(number));
  return impl_->Write(
      [&](sqlite::Database& db) { return SwitchReaders(db, number, std::move(uncovered), {}); });
}

Status LabelDatabase::GiveUp(int64_t number) {
  std::lock_guard lock(impl_->switch_mutex);
  return impl_->Write([&](sqlite::Database& db) -> Status {
    NDP_ASSIGN(const VersionRow version, LoadVersion(db, number));
    if (version.state == VersionState::kServing) {
      return Fail(ErrorCode::kFailedPrecondition,
                  "model version " + std::to_string(number) +
                      " is serving: its labels cannot be dropped before readers are switched to "
                      "another version of its backbone");
    }
    if (version.state == VersionState::kStaged) {
      return Fail(ErrorCode::kFailedPrecondition,
                  "model version " + std::to_string(number) + " is staged: it has no labels");
    }
    NDP_RETURN_IF_ERROR(MoveVersion(db, version, VersionState::kRetired));
    NDP_RETURN_IF_ERROR(SetComplete(db, number, false));
    return db.Run("UPDATE meta SET previous = NULL WHERE previous = ?1", number);
  });
}

Status LabelDatabase::DropOldOutcomes(const std::stop_token& stop) {
  std::lock_guard lock(impl_->switch_mutex);
  PruneCursor cursor;
  bool more = true;
  while (more && !stop.stop_requested()) {
    NDP_ASSIGN(more, impl_->Write([&](sqlite::Database& db) { return PruneStep(db, cursor); }));
  }
  return {};
}

}  // namespace ndpipe::label
