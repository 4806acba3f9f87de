// What readers see of photos: search, one photo's label, counts.
#include <algorithm>

#include "ndpipe/label/impl.h"
#include "ndpipe/label/replicas.h"
#include "ndpipe/label/version_table.h"
#include "ndpipe/label/vocabulary.h"

namespace ndpipe::label {
namespace {

Status CheckLimit(int64_t limit) {
  if (limit >= 1 && limit <= kMaxSearchLimit) return {};
  return Fail(ErrorCode::kInvalidArgument, "a search gives 1 to " +
                                               std::to_string(kMaxSearchLimit) + " photos, not " +
                                               std::to_string(limit));
}

// A present place of the photo if there is one, else one where it was. Found: PhotoLabel or
// PhotoFailure.
template <typename Found>
Status ReadPlace(sqlite::Database& db, const StoreNames& stores, int64_t photo, Found& label) {
  return db.Query(
      "SELECT store, path, origin FROM location WHERE photo = ?1 ORDER BY state, store, path LIMIT "
      "1",
      [&](const sqlite::Statement& row) {
        const auto store = stores.find(row.Int(0));
        if (store != stores.end()) label.store = store->second;
        label.path = row.Text(1);
        label.origin = row.Text(2);
      },
      photo);
}

Status ReadPlaces(sqlite::Database& db, std::vector<PhotoLabel>& labels) {
  NDP_ASSIGN(const auto stores, ReadStoreNames(db));
  for (auto& label : labels) {
    NDP_RETURN_IF_ERROR(ReadPlace(db, stores, label.photo, label));
  }
  return {};
}

// Collects result rows of photo number, photo id and, for models, confidence.
class HitCollector {
 public:
  HitCollector(std::string name, LabelId label) : name_(std::move(name)), label_(label) {}

  Status Users(sqlite::Database& db, int64_t limit) {
    return db.Query(
        "SELECT number, id FROM photo WHERE user_label = ?1 AND present > 0 ORDER BY id LIMIT ?2",
        [&](const sqlite::Statement& row) { Append(row, LabelSource::kUser, 0, 1); }, label_,
        limit);
  }

  // Photos whose visible outcome is of `version`: those pinned to it, or those not pinned at all
  // when it serves. `outranked`: also those where a user's label hides the model's.
  Status Models(sqlite::Database& db, int64_t version, bool serves, bool outranked, int64_t limit) {
    return db.Query(
        "SELECT p.number, p.id, h.confidence FROM hit h CROSS JOIN photo p ON p.number = h.photo "
        "WHERE h.version = ?1 AND h.label = ?2 AND p.present > 0 AND (?5 OR p.user_label IS NULL) "
        "AND p.pinned IS ?3 ORDER BY h.confidence DESC, p.id LIMIT ?4",
        [&](const sqlite::Statement& row) {
          Append(row, LabelSource::kModel, version, row.Real(2));
        },
        version, label_, serves ? std::optional<int64_t>() : std::optional(version), limit,
        outranked);
  }

  // All photos that `version` gives the label.
  Status OfVersion(sqlite::Database& db, int64_t version, int64_t limit) {
    return db.Query(
        "SELECT p.number, p.id, h.confidence FROM hit h CROSS JOIN photo p ON p.number = h.photo "
        "WHERE h.version = ?1 AND h.label = ?2 AND p.present > 0 ORDER BY h.confidence DESC, p.id "
        "LIMIT ?3",
        [&](const sqlite::Statement& row) {
          Append(row, LabelSource::kModel, version, row.Real(2));
        },
        version, label_, limit);
  }

  std::vector<PhotoLabel> Take(int64_t limit) {
    std::ranges::sort(hits_, [](const PhotoLabel& a, const PhotoLabel& b) {
      return a.confidence != b.confidence ? a.confidence > b.confidence : a.id < b.id;
    });
    if (hits_.size() > static_cast<size_t>(limit)) hits_.resize(static_cast<size_t>(limit));
    return std::move(hits_);
  }

  Status Finish() { return reader_.Finish(); }

 private:
  void Append(const sqlite::Statement& row, LabelSource source, int64_t version,
              double confidence) {
    PhotoLabel hit;
    hit.photo = row.Int(0);
    hit.id = reader_.Id(row, 1);
    hit.label = label_;
    hit.label_name = name_;
    hit.confidence = confidence;
    hit.source = source;
    hit.version = version;
    hits_.push_back(std::move(hit));
  }

  const std::string name_;
  const LabelId label_;
  const StoreNames no_stores_;
  ReplicaReader reader_{no_stores_};
  std::vector<PhotoLabel> hits_;
};

// The versions whose outcomes readers see of some photo: those that photos are pinned to.
Result<std::vector<int64_t>> PinnedVersions(sqlite::Database& db) {
  std::vector<int64_t> versions;
  NDP_RETURN_IF_ERROR(db.Query(
      "SELECT number FROM version WHERE EXISTS (SELECT 1 FROM photo WHERE pinned = version.number)",
      [&](const sqlite::Statement& row) { versions.push_back(row.Int(0)); }));
  return versions;
}

Result<std::vector<PhotoLabel>> FindHits(sqlite::Database& db, const std::string& name,
                                         std::optional<LabelSource> source, int64_t limit) {
  NDP_ASSIGN(const auto label, FindLabelId(db, name));
  if (!label) return std::vector<PhotoLabel>();
  HitCollector hits(name, *label);
  if (source != LabelSource::kModel) NDP_RETURN_IF_ERROR(hits.Users(db, limit));
  if (source != LabelSource::kUser) {
    // Who asks for the model's labels by name wants to know what it says, also where users know
    // better.
    const bool outranked = source == LabelSource::kModel;
    NDP_ASSIGN(const auto readers, LoadReaderVersions(db));
    if (readers.serving) {
      NDP_RETURN_IF_ERROR(hits.Models(db, *readers.serving, true, outranked, limit));
    }
    NDP_ASSIGN(const auto pinned, PinnedVersions(db));
    for (const int64_t version : pinned) {
      NDP_RETURN_IF_ERROR(hits.Models(db, version, false, outranked, limit));
    }
  }
  NDP_RETURN_IF_ERROR(hits.Finish());
  auto found = hits.Take(limit);
  NDP_RETURN_IF_ERROR(ReadPlaces(db, found));
  return found;
}

}  // namespace

Result<std::vector<PhotoLabel>> LabelDatabase::Search(const std::string& label,
                                                      std::optional<LabelSource> source,
                                                      int64_t limit) {
  NDP_RETURN_IF_ERROR(CheckLimit(limit));
  return impl_->Read([&](sqlite::Database& db) { return FindHits(db, label, source, limit); });
}

Result<std::vector<PhotoLabel>> LabelDatabase::SearchVersion(int64_t version,
                                                             const std::string& label,
                                                             int64_t limit) {
  NDP_RETURN_IF_ERROR(CheckLimit(limit));
  return impl_->Read([&](sqlite::Database& db) -> Result<std::vector<PhotoLabel>> {
    NDP_ASSIGN(const VersionRow row, LoadVersion(db, version));
    if (!row.is_complete) {
      return Fail(ErrorCode::kFailedPrecondition,
                  "model version " + std::to_string(version) +
                      " has no complete set of labels to search: relabel with it first, with or "
                      "without --no-switch");
    }
    NDP_ASSIGN(const auto label_id, FindLabelId(db, label));
    if (!label_id) return std::vector<PhotoLabel>();
    HitCollector hits(label, *label_id);
    NDP_RETURN_IF_ERROR(hits.OfVersion(db, version, limit));
    NDP_RETURN_IF_ERROR(hits.Finish());
    auto found = hits.Take(limit);
    NDP_RETURN_IF_ERROR(ReadPlaces(db, found));
    return found;
  });
}

Result<std::vector<PhotoFailure>> LabelDatabase::Failures(int64_t limit) {
  NDP_RETURN_IF_ERROR(CheckLimit(limit));
  return impl_->Read([&](sqlite::Database& db) -> Result<std::vector<PhotoFailure>> {
    std::vector<PhotoFailure> failures;
    std::vector<int64_t> photos;
    NDP_ASSIGN(const auto stores, ReadStoreNames(db));
    ReplicaReader reader(stores);
    NDP_RETURN_IF_ERROR(db.Query(
        "SELECT p.number, p.id, o.reason, o.version FROM meta m CROSS JOIN outcome o ON o.version "
        "= m.serving CROSS JOIN photo p ON p.number = o.photo WHERE o.label IS NULL AND p.present "
        "> 0 AND p.pinned IS NULL ORDER BY p.id LIMIT ?1",
        [&](const sqlite::Statement& row) {
          PhotoFailure failure;
          failure.id = reader.Id(row, 1);
          failure.reason = row.Text(2);
          failure.version = row.Int(3);
          failures.push_back(std::move(failure));
          photos.push_back(row.Int(0));
        },
        limit));
    NDP_RETURN_IF_ERROR(reader.Finish());
    for (size_t i = 0; i < failures.size(); ++i) {
      NDP_RETURN_IF_ERROR(ReadPlace(db, stores, photos[i], failures[i]));
    }
    return failures;
  });
}

Result<std::optional<PhotoLabel>> LabelDatabase::LabelOf(const photo::PhotoId& id) {
  return impl_->Read([&](sqlite::Database& db) -> Result<std::optional<PhotoLabel>> {
    std::vector<PhotoLabel> found;
    NDP_RETURN_IF_ERROR(db.Query(
        "SELECT p.number, p.user_label, o.label, o.confidence, o.version, v.name FROM photo p "
        "CROSS JOIN meta LEFT JOIN outcome o ON o.version = coalesce(p.pinned, meta.serving) AND "
        "o.photo = p.number LEFT JOIN vocabulary v ON v.id = coalesce(p.user_label, o.label) WHERE "
        "p.id = ?1",
        [&](const sqlite::Statement& row) {
          const bool user = !row.IsNull(1);
          if (!user && row.IsNull(2)) return;
          PhotoLabel label;
          label.photo = row.Int(0);
          label.id = id;
          label.label = user ? row.Int(1) : row.Int(2);
          label.label_name = row.Text(5);
          label.confidence = user ? 1.0 : row.Real(3);
          label.source = user ? LabelSource::kUser : LabelSource::kModel;
          label.version = user ? 0 : row.Int(4);
          found.push_back(std::move(label));
        },
        std::span<const uint8_t>(id.bytes)));
    if (found.empty()) return std::nullopt;
    NDP_RETURN_IF_ERROR(ReadPlaces(db, found));
    return std::move(found.front());
  });
}

Result<std::vector<PhotoLabel>> LabelDatabase::ModelLabels(int64_t version, int64_t after_photo,
                                                           int64_t limit) {
  return impl_->Read([&](sqlite::Database& db) -> Result<std::vector<PhotoLabel>> {
    NDP_RETURN_IF_ERROR(LoadVersion(db, version));
    std::vector<PhotoLabel> labels;
    const StoreNames no_stores;
    ReplicaReader reader(no_stores);
    NDP_RETURN_IF_ERROR(db.Query(
        "SELECT p.number, p.id, o.label, o.confidence, v.name FROM outcome o CROSS JOIN photo p ON "
        "p.number = o.photo CROSS JOIN vocabulary v ON v.id = o.label WHERE o.version = ?1 AND "
        "o.photo > ?2 AND o.label IS NOT NULL ORDER BY o.photo LIMIT ?3",
        [&](const sqlite::Statement& row) {
          PhotoLabel label;
          label.photo = row.Int(0);
          label.id = reader.Id(row, 1);
          label.label = row.Int(2);
          label.label_name = row.Text(4);
          label.confidence = row.Real(3);
          label.version = version;
          labels.push_back(std::move(label));
        },
        version, after_photo, std::max<int64_t>(limit, 0)));
    NDP_RETURN_IF_ERROR(reader.Finish());
    NDP_RETURN_IF_ERROR(ReadPlaces(db, labels));
    return labels;
  });
}

Result<LabelCounts> LabelDatabase::Counts() {
  return impl_->Read([&](sqlite::Database& db) -> Result<LabelCounts> {
    LabelCounts counts;
    NDP_RETURN_IF_ERROR(db.Query(
        "SELECT m.photos, m.known - m.photos, coalesce(v.present_labelled, 0) + m.pinned_labelled, "
        "coalesce(v.present_failed, 0) + m.pinned_failed, m.pinned_labelled + m.pinned_failed, "
        "m.user_labelled FROM meta m LEFT JOIN version v ON v.number = m.serving",
        [&](const sqlite::Statement& row) {
          counts = {.photos = row.Int(0),
                    .missing = row.Int(1),
                    .labelled = row.Int(2),
                    .failed = row.Int(3),
                    .pending = row.Int(4),
                    .user_labelled = row.Int(5)};
        }));
    return counts;
  });
}

Result<int64_t> LabelDatabase::CountPhotosOf(const std::string& store) {
  return impl_->Read([&](sqlite::Database& db) -> Result<int64_t> {
    NDP_ASSIGN(const auto photos, db.QueryInt("SELECT photos FROM store WHERE id = ?1", store));
    return photos.value_or(0);
  });
}

Result<bool> LabelDatabase::HasPhotosAlone(const std::string& store,
                                           const std::set<std::string>& others) {
  return impl_->Read([&](sqlite::Database& db) -> Result<bool> {
    NDP_ASSIGN(const auto names, ReadStoreNames(db));
    std::string numbers;  // a JSON array: SQLite has no list to bind
    std::optional<int64_t> own;
    for (const auto& [number, name] : names) {
      if (name == store) own = number;
      if (name != store && others.contains(name)) {
        numbers += (numbers.empty() ? "" : ",") + std::to_string(number);
      }
    }
    if (!own) return false;
    NDP_ASSIGN(const auto found,
               db.QueryInt("SELECT 1 FROM replica r WHERE r.store = ?1 AND r.present > 0 AND NOT "
                           "EXISTS (SELECT 1 FROM replica o WHERE o.photo = r.photo AND o.present "
                           "> 0 AND o.store IN (SELECT value FROM json_each(?2))) LIMIT 1",
                           *own, "[" + numbers + "]"));
    return found.has_value();
  });
}

}  // namespace ndpipe::label
