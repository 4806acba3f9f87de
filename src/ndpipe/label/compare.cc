// Two model versions side by side.
#include <algorithm>
#include <queue>
#include <unordered_map>

#include "ndpipe/label/impl.h"
#include "ndpipe/label/replicas.h"
#include "ndpipe/label/version_table.h"

namespace ndpipe::label {
namespace {

constexpr int64_t kMaxExamples = 1000;

struct Pair {
  int64_t photo = 0;
  std::optional<LabelId> first;
  std::optional<LabelId> second;
  std::optional<LabelId> user;
  double first_confidence = 0;
  double second_confidence = 0;
};

// What the second version is surer of comes first.
struct SurerFirst {
  bool operator()(const Pair& a, const Pair& b) const {
    return a.second_confidence != b.second_confidence ? a.second_confidence > b.second_confidence
                                                      : a.photo < b.photo;
  }
};

std::optional<LabelId> LabelAt(const sqlite::Statement& row, int column) {
  if (row.IsNull(column)) return std::nullopt;
  return row.Int(column);
}

void CountAccuracy(const Pair& pair, AccuracyComparison& accuracy) {
  if (!pair.user) return;
  ++accuracy.photos;
  accuracy.first_right += pair.first == pair.user ? 1 : 0;
  accuracy.second_right += pair.second == pair.user ? 1 : 0;
}

// One pass over both sets of outcomes, which lie in the order of photos.
class Comparer {
 public:
  Comparer(VersionComparison& comparison, int64_t num_examples)
      : comparison_(comparison), num_examples_(static_cast<size_t>(num_examples)) {}

  void Add(const Pair& pair, bool is_unseen) {
    const bool is_same = pair.first == pair.second;
    ++(is_same ? comparison_.same : comparison_.changed);
    if (pair.first) ++classes_[*pair.first].first;
    if (pair.second) ++classes_[*pair.second].second;
    if (pair.first && is_same) ++classes_[*pair.first].both;
    CountAccuracy(pair, comparison_.all);
    if (is_unseen) CountAccuracy(pair, comparison_.unseen);
    if (!is_same) AddExample(pair);
  }

  Status Finish(sqlite::Database& db) {
    NDP_RETURN_IF_ERROR(FinishClasses(db));
    std::vector<Pair> pairs;
    for (; !examples_.empty(); examples_.pop()) pairs.push_back(examples_.top());
    std::ranges::reverse(pairs);
    NDP_ASSIGN(const auto stores, ReadStoreNames(db));
    for (const Pair& pair : pairs) {
      NDP_ASSIGN(auto example, Describe(db, stores, pair));
      comparison_.examples.push_back(std::move(example));
    }
    return {};
  }

 private:
  // The top of the queue is the least sure of them.
  void AddExample(const Pair& pair) {
    if (num_examples_ == 0) return;
    if (examples_.size() == num_examples_) {
      if (!SurerFirst()(pair, examples_.top())) return;
      examples_.pop();
    }
    examples_.push(pair);
  }

  static Result<std::string> NameOf(sqlite::Database& db, std::optional<LabelId> label) {
    std::string name;
    if (!label) return name;
    NDP_RETURN_IF_ERROR(db.Query(
        "SELECT name FROM vocabulary WHERE id = ?1",
        [&](const sqlite::Statement& row) { name = row.Text(0); }, *label));
    return name;
  }

  Status FinishClasses(sqlite::Database& db) {
    for (auto& [label, counts] : classes_) {
      counts.label = label;
      NDP_ASSIGN(counts.name, NameOf(db, label));
      comparison_.classes.push_back(counts);
    }
    std::ranges::sort(comparison_.classes, {}, &ClassComparison::name);
    return {};
  }

  static Result<ChangedPhoto> Describe(sqlite::Database& db, const StoreNames& stores,
                                       const Pair& pair) {
    ChangedPhoto photo;
    photo.first_confidence = pair.first_confidence;
    photo.second_confidence = pair.second_confidence;
    NDP_ASSIGN(photo.first, NameOf(db, pair.first));
    NDP_ASSIGN(photo.second, NameOf(db, pair.second));
    NDP_ASSIGN(photo.user_label, NameOf(db, pair.user));
    ReplicaReader reader(stores);
    NDP_RETURN_IF_ERROR(db.Query(
        "SELECT p.id, l.store, l.path, l.origin FROM photo p LEFT JOIN location l ON l.photo = "
        "p.number WHERE p.number = ?1 ORDER BY l.state, l.store, l.path LIMIT 1",
        [&](const sqlite::Statement& row) {
          photo.id = reader.Id(row, 0);
          const auto store = stores.find(row.Int(1));
          if (store != stores.end()) photo.store = store->second;
          photo.path = row.Text(2);
          photo.origin = row.Text(3);
        },
        pair.photo));
    NDP_RETURN_IF_ERROR(reader.Finish());
    return photo;
  }

  VersionComparison& comparison_;
  const size_t num_examples_;
  std::unordered_map<LabelId, ClassComparison> classes_;
  std::priority_queue<Pair, std::vector<Pair>, SurerFirst> examples_;
};

Result<VersionRow> LoadCompared(sqlite::Database& db, int64_t number) {
  NDP_ASSIGN(const VersionRow version, LoadVersion(db, number));
  if (version.outcomes > 0) return version;
  return Fail(ErrorCode::kFailedPrecondition,
              "there are no labels of model version " + std::to_string(number) +
                  " (any more): make them with 'ndpipe relabel --model-version " +
                  std::to_string(number) + " --no-switch'");
}

}  // namespace

Result<VersionComparison> LabelDatabase::Compare(int64_t first, int64_t second,
                                                 int64_t num_examples) {
  if (num_examples < 0 || num_examples > kMaxExamples) {
    return Fail(ErrorCode::kInvalidArgument, "a comparison gives 0 to " +
                                                 std::to_string(kMaxExamples) + " examples, not " +
                                                 std::to_string(num_examples));
  }
  return impl_->Read([&](sqlite::Database& db) -> Result<VersionComparison> {
    NDP_ASSIGN(const VersionRow a, LoadCompared(db, first));
    NDP_ASSIGN(const VersionRow b, LoadCompared(db, second));
    VersionComparison comparison;
    comparison.first = first;
    comparison.second = second;
    Comparer comparer(comparison, num_examples);
    NDP_RETURN_IF_ERROR(db.Query(
        "SELECT a.photo, a.label, b.label, p.user_label, a.confidence, b.confidence, p.part FROM "
        "outcome a CROSS JOIN outcome b ON b.version = ?2 AND b.photo = a.photo CROSS JOIN photo p "
        "ON p.number = a.photo WHERE a.version = ?1 AND p.present > 0",
        [&](const sqlite::Statement& row) {
          comparer.Add({.photo = row.Int(0),
                        .first = LabelAt(row, 1),
                        .second = LabelAt(row, 2),
                        .user = LabelAt(row, 3),
                        .first_confidence = row.Real(4),
                        .second_confidence = row.Real(5)},
                       row.Int(6) != static_cast<int64_t>(photo::Part::kTrain));
        },
        first, second));
    NDP_RETURN_IF_ERROR(comparer.Finish(db));
    const int64_t both = comparison.same + comparison.changed;
    comparison.only_first = a.present_labelled + a.present_failed - both;
    comparison.only_second = b.present_labelled + b.present_failed - both;
    return comparison;
  });
}

}  // namespace ndpipe::label
