// What a relabel writes: one outcome a photo and version.
#include <algorithm>
#include <cmath>

#include "ndpipe/label/impl.h"
#include "ndpipe/label/replicas.h"
#include "ndpipe/label/search_index.h"
#include "ndpipe/label/version_table.h"

namespace ndpipe::label {
namespace {

// An outcome with the photo that it is of.
struct Placed {
  const LabelOutcome* outcome = nullptr;
  int64_t photo = 0;
  bool present = false;
  bool deleted = false;
  std::optional<int64_t> pinned;
};

struct Totals {
  int64_t outcomes = 0;
  int64_t present_labelled = 0;
  int64_t present_failed = 0;
  int64_t pinned_labelled = 0;
  int64_t pinned_failed = 0;
};

Status CheckOutcomes(std::span<const LabelOutcome> outcomes, int64_t version,
                     const std::unordered_set<LabelId>& classes) {
  for (const auto& outcome : outcomes) {
    const auto bad = [&](const std::string& reason) {
      return Fail(ErrorCode::kInvalidArgument,
                  "outcome of photo " + std::to_string(outcome.number) + ": " + reason);
    };
    if (outcome.number <= 0) return bad("photo numbers start at 1");
    if (!std::isfinite(outcome.confidence) || outcome.confidence < 0 || outcome.confidence > 1) {
      return bad("its confidence is not between 0 and 1");
    }
    if (outcome.label && !classes.contains(*outcome.label)) {
      return bad("label " + std::to_string(*outcome.label) + " is no class of model version " +
                 std::to_string(version));
    }
  }
  return {};
}

// Cut at a whole UTF-8 character.
std::string_view BoundedReason(std::string_view reason) {
  if (reason.size() <= kMaxReasonBytes) return reason;
  size_t size = kMaxReasonBytes;
  while (size > 0 && (static_cast<uint8_t>(reason[size]) & 0xc0) == 0x80) --size;
  return reason.substr(0, size);
}

// Finds the photos of the outcomes' store numbers. Blocks are nearly contiguous, so one range read
// replaces a search a photo; outcomes far apart are looked up one by one.
class PhotoFinder {
 public:
  PhotoFinder(sqlite::Database& db, int64_t store) : db_(db), store_(store) {}

  // `outcomes` by number. kInvalidArgument for a number that the store never announced.
  Result<std::vector<Placed>> Find(std::span<const LabelOutcome* const> outcomes) {
    std::vector<Placed> placed;
    placed.reserve(outcomes.size());
    constexpr int64_t kMaxSpread = 8;
    for (size_t begin = 0; begin < outcomes.size();) {
      size_t end = begin + 1;
      while (end < outcomes.size() &&
             outcomes[end]->number - outcomes[end - 1]->number <= kMaxSpread) {
        ++end;
      }
      NDP_RETURN_IF_ERROR(FindRange(outcomes.subspan(begin, end - begin), placed));
      begin = end;
    }
    return placed;
  }

 private:
  Status FindRange(std::span<const LabelOutcome* const> outcomes, std::vector<Placed>& placed) {
    size_t next = 0;
    NDP_RETURN_IF_ERROR(db_.Query(
        "SELECT r.number, p.number, p.present, p.deleted, p.pinned FROM replica r CROSS JOIN photo "
        "p ON p.number = r.photo WHERE r.store = ?1 AND r.number BETWEEN ?2 AND ?3 ORDER BY "
        "r.number",
        [&](const sqlite::Statement& row) {
          // Several outcomes of one photo: the later one wins, as it is written later.
          while (next < outcomes.size() && outcomes[next]->number == row.Int(0)) {
            Placed item{.outcome = outcomes[next++],
                        .photo = row.Int(1),
                        .present = row.Int(2) > 0,
                        .deleted = row.Int(3) != 0,
                        .pinned = {}};
            if (!row.IsNull(4)) item.pinned = row.Int(4);
            placed.push_back(item);
          }
        },
        store_, outcomes.front()->number, outcomes.back()->number));
    if (next == outcomes.size()) return {};
    return Fail(ErrorCode::kInvalidArgument,
                "outcome of photo " + std::to_string(outcomes[next]->number) +
                    ": the store never announced a photo with this number");
  }

  sqlite::Database& db_;
  const int64_t store_;
};

// Writes the outcomes of one version and keeps the counters.
class OutcomeWriter {
 public:
  OutcomeWriter(sqlite::Database& db, const VersionRow& version, std::optional<int64_t> serving)
      : db_(db),
        version_(version.number),
        indexed_to_(version.indexed_to),
        serves_(serving == version.number) {}

  Status Write(std::span<const Placed> items) {
    for (const Placed& item : items) {
      const LabelOutcome& outcome = *item.outcome;
      NDP_RETURN_IF_ERROR(db_.Run("INSERT OR IGNORE INTO outcome VALUES (?1, ?2, ?3, ?4, ?5)",
                                  version_, item.photo, outcome.label,
                                  outcome.label ? outcome.confidence : 0.0,
                                  outcome.label ? std::optional<std::string_view>()
                                                : std::optional(BoundedReason(outcome.reason))));
      if (db_.Changes() == 0) {
        NDP_RETURN_IF_ERROR(Replace(item));
      } else {
        Count(item, outcome.label.has_value(), 1);
        ++totals_.outcomes;
        NDP_RETURN_IF_ERROR(AddHit(item));
      }
      if (item.pinned) NDP_RETURN_IF_ERROR(UpdatePinned(item));
    }
    return Store();
  }

 private:
  void Count(const Placed& item, bool labelled, int64_t by) {
    if (!item.present) return;
    (labelled ? totals_.present_labelled : totals_.present_failed) += by;
    if (item.pinned == version_) {
      (labelled ? totals_.pinned_labelled : totals_.pinned_failed) += by;
    }
  }

  Status Replace(const Placed& item) {
    const LabelOutcome& outcome = *item.outcome;
    NDP_ASSIGN(const auto old_label,
               db_.QueryInt("SELECT label FROM outcome WHERE version = ?1 AND photo = ?2", version_,
                            item.photo));
    Count(item, old_label.has_value(), -1);
    Count(item, outcome.label.has_value(), 1);
    if (old_label && item.photo <= indexed_to_) {
      NDP_RETURN_IF_ERROR(RemoveHit(db_, version_, *old_label, item.photo));
    }
    NDP_RETURN_IF_ERROR(AddHit(item));
    return db_.Run(
        "UPDATE outcome SET label = ?3, confidence = ?4, reason = ?5 WHERE version = ?1 AND photo "
        "= ?2",
        version_, item.photo, outcome.label, outcome.label ? outcome.confidence : 0.0,
        outcome.label ? std::optional<std::string_view>()
                      : std::optional(BoundedReason(outcome.reason)));
  }

  Status AddHit(const Placed& item) {
    const LabelOutcome& outcome = *item.outcome;
    if (!outcome.label || item.photo > indexed_to_) return {};
    return PutHit(db_, version_, *outcome.label, item.photo, outcome.confidence);
  }

  // A pending photo that the serving version covers now is pending no more.
  Status UpdatePinned(const Placed& item) {
    if (!serves_) return {};
    NDP_ASSIGN(const auto was_labelled,
               db_.QueryInt("SELECT o.label IS NOT NULL FROM photo p JOIN outcome o ON o.version = "
                            "p.pinned AND o.photo = p.number WHERE p.number = ?1",
                            item.photo));
    // Nothing: an earlier outcome of this batch unpinned it.
    if (!was_labelled) return {};
    if (item.present) (*was_labelled ? totals_.pinned_labelled : totals_.pinned_failed) -= 1;
    return db_.Run("UPDATE photo SET pinned = NULL WHERE number = ?1", item.photo);
  }

  Status Store() {
    NDP_RETURN_IF_ERROR(
        db_.Run("UPDATE version SET outcomes = outcomes + ?2, present_labelled = present_labelled "
                "+ ?3, present_failed = present_failed + ?4 WHERE number = ?1",
                version_, totals_.outcomes, totals_.present_labelled, totals_.present_failed));
    if (totals_.pinned_labelled == 0 && totals_.pinned_failed == 0) return {};
    return db_.Run(
        "UPDATE meta SET pinned_labelled = pinned_labelled + ?1, pinned_failed = pinned_failed + "
        "?2",
        totals_.pinned_labelled, totals_.pinned_failed);
  }

  sqlite::Database& db_;
  const int64_t version_;
  const int64_t indexed_to_;  // search_index.h
  const bool serves_;
  Totals totals_;
};

Status LoadClasses(sqlite::Database& db, int64_t version, std::unordered_set<LabelId>& classes) {
  if (!classes.empty()) return {};
  return db.Query(
      "SELECT label FROM version_class WHERE version = ?1",
      [&](const sqlite::Statement& row) { classes.insert(row.Int(0)); }, version);
}

Status WriteRequest(sqlite::Database& db, VersionClasses& known_classes,
                    const OutcomeRequest& request) {
  std::vector<const LabelOutcome*> by_number;
  by_number.reserve(request.outcomes.size());
  for (const auto& outcome : request.outcomes) by_number.push_back(&outcome);
  std::ranges::stable_sort(by_number, {}, &LabelOutcome::number);
  NDP_ASSIGN(const VersionRow version, LoadVersion(db, request.version));
  auto& classes = known_classes[version.number];
  NDP_RETURN_IF_ERROR(LoadClasses(db, version.number, classes));
  NDP_RETURN_IF_ERROR(CheckOutcomes(request.outcomes, version.number, classes));
  NDP_ASSIGN(const auto store,
             db.QueryInt("SELECT number FROM store WHERE id = ?1", request.store));
  if (!store) {
    return Fail(ErrorCode::kNotFound, "store " + request.store + " never sent its change log");
  }
  NDP_ASSIGN(auto placed, PhotoFinder(db, *store).Find(by_number));
  std::erase_if(placed, [](const Placed& item) { return item.deleted; });
  std::ranges::stable_sort(placed, {}, &Placed::photo);
  NDP_ASSIGN(const auto readers, LoadReaderVersions(db));
  return OutcomeWriter(db, version, readers.serving).Write(placed);
}

}  // namespace

void LabelDatabase::Impl::WriteTogether(std::span<OutcomeRequest* const> requests) {
  const auto together = Write([&](sqlite::Database& db) -> Status {
    for (const OutcomeRequest* request : requests) {
      NDP_RETURN_IF_ERROR(WriteRequest(db, classes, *request));
    }
    return {};
  });
  for (OutcomeRequest* request : requests) request->result = together;
  if (together || requests.size() == 1) return;
  // One of them cannot be written: the others must not suffer for it.
  for (OutcomeRequest* request : requests) {
    request->result =
        Write([&](sqlite::Database& db) { return WriteRequest(db, classes, *request); });
  }
}

Status LabelDatabase::WriteOutcomes(int64_t version, const std::string& store,
                                    std::span<const LabelOutcome> outcomes) {
  OutcomeRequest request{.version = version, .store = store, .outcomes = outcomes};
  std::unique_lock lock(impl_->requests_mutex);
  impl_->requests.push_back(&request);
  impl_->requests_changed.wait(lock, [&] { return request.done || !impl_->requests_led; });
  if (request.done) return request.result;
  impl_->requests_led = true;
  const std::vector<OutcomeRequest*> taken = std::exchange(impl_->requests, {});
  lock.unlock();
  impl_->WriteTogether(taken);
  lock.lock();
  for (OutcomeRequest* done : taken) done->done = true;
  impl_->requests_led = false;
  impl_->requests_changed.notify_all();
  return request.result;
}

Result<int64_t> LabelDatabase::CountOutcomes(int64_t version) {
  return impl_->Read([&](sqlite::Database& db) -> Result<int64_t> {
    NDP_ASSIGN(const VersionRow row, LoadVersion(db, version));
    return row.outcomes;
  });
}

Result<std::vector<PlacedPhoto>> LabelDatabase::WithoutOutcome(int64_t version, int64_t after,
                                                               int64_t limit) {
  return impl_->Read([&](sqlite::Database& db) -> Result<std::vector<PlacedPhoto>> {
    NDP_ASSIGN(const VersionRow row, LoadVersion(db, version));
    NDP_ASSIGN(const auto known, db.QueryInt("SELECT known FROM meta"));
    std::vector<PlacedPhoto> photos;
    // With an outcome of every known photo nobody has to be looked for.
    if (row.outcomes == known.value_or(0)) return photos;
    NDP_ASSIGN(const auto stores, ReadStoreNames(db));
    ReplicaReader reader(stores);
    NDP_RETURN_IF_ERROR(db.Query(
        "SELECT p.number, p.id, r.store, r.number FROM (SELECT number, id FROM photo WHERE number "
        "> ?2 AND present > 0 AND NOT EXISTS (SELECT 1 FROM outcome o WHERE o.version = ?1 AND "
        "o.photo = photo.number) ORDER BY number LIMIT ?3) p CROSS JOIN replica r ON r.photo = "
        "p.number AND r.present > 0 ORDER BY p.number",
        [&](const sqlite::Statement& row) {
          if (photos.empty() || photos.back().photo != row.Int(0)) {
            photos.push_back({.photo = row.Int(0), .id = reader.Id(row, 1), .replicas = {}});
          }
          reader.Append(row, 2, photos.back());
        },
        version, after, std::max<int64_t>(limit, 0)));
    NDP_RETURN_IF_ERROR(reader.Finish());
    return photos;
  });
}

}  // namespace ndpipe::label
