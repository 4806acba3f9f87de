// Random operations on the database and on a plain model of it in memory, which must agree after
// each one.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>

#include "ndpipe/label/label_fixture.h"

namespace ndpipe::label {
namespace {

using photo::Change;
using photo::ChangeKind;

const std::vector<std::string> kClasses = {"cat", "dog", "owl"};
const std::vector<std::string> kStores = {"a", "b", "c"};
constexpr int64_t kSeeds = 12;

// What the contract says, without counters, indexes or pins kept apart from what they follow from.
class Model {
 public:
  struct Outcome {
    std::string label;  // empty: failed
    double confidence = 0;
  };
  struct Photo {
    // Of each store that has it: the paths, and whether each is present; and its source's labels.
    std::map<std::string, std::map<std::string, bool>> stores;
    std::map<std::string, std::set<std::string>> source_labels;
    std::string correction;
    std::map<int64_t, Outcome> outcomes;
    std::optional<int64_t> shown;  // the version whose outcome readers see
    bool test = false;
    int64_t life = 0;  // another one after the photo was deleted everywhere

    bool PresentIn(const std::string& store) const {
      const auto found = stores.find(store);
      return found != stores.end() &&
             std::ranges::any_of(found->second, [](const auto& path) { return path.second; });
    }
    bool Present() const {
      return std::ranges::any_of(stores, [&](const auto& store) { return PresentIn(store.first); });
    }
    std::string UserLabel() const {
      if (!correction.empty()) return correction;
      std::set<std::string> all;
      for (const auto& [store, labels] : source_labels) all.insert(labels.begin(), labels.end());
      return all.size() == 1 ? *all.begin() : "";
    }
    const Outcome* Shown() const { return shown ? &outcomes.at(*shown) : nullptr; }
  };

  std::map<int64_t, Photo> photos;  // by seed
  std::optional<int64_t> serving;
  std::set<int64_t> complete;  // versions that were covered, and of which nothing was dropped since

  void WriteOutcome(int64_t version, int64_t seed, const Outcome& outcome) {
    Photo& photo = photos.at(seed);
    photo.outcomes[version] = outcome;
    if (serving == version) photo.shown = version;
  }
  bool Covers(int64_t version, const std::set<std::string>& present) const {
    return std::ranges::none_of(photos, [&](const auto& item) {
      return !item.second.outcomes.contains(version) &&
             std::ranges::any_of(
                 present, [&](const std::string& store) { return item.second.PresentIn(store); });
    });
  }
  bool MaySwitch(int64_t version, const std::set<std::string>& present) const {
    return serving == version || Covers(version, present);
  }
  void Switch(int64_t version) {
    serving = version;
    complete.insert(version);
    for (auto& [seed, photo] : photos) {
      if (photo.outcomes.contains(version)) photo.shown = version;
    }
  }
};

class RandomOperationsTest : public LabelFixture {
 protected:
  struct Deleted {
    std::string store;
    int64_t number = 0;
    int64_t seed = 0;
    int64_t life = 0;
  };

  int64_t Pick(int64_t below) {
    return static_cast<int64_t>(random_() % static_cast<uint64_t>(below));
  }
  const std::string& PickStore() { return kStores[static_cast<size_t>(Pick(3))]; }
  const std::string& PickClass() { return kClasses[static_cast<size_t>(Pick(3))]; }

  // A store's number of a photo; a new one after each deletion.
  int64_t NumberOf(const std::string& store, int64_t seed) {
    auto& number = numbers_[{store, seed}];
    if (number == 0) number = ++last_number_[store];
    return number;
  }

  static std::string PathOf(int64_t seed, int64_t copy) {
    return std::to_string(seed) + "/" + std::to_string(copy) + ".jpg";
  }

  void StoreChange() {
    const std::string& store = PickStore();
    const int64_t seed = 1 + Pick(kSeeds);
    const bool known = model_.photos.contains(seed) && model_.photos[seed].stores.contains(store);
    Change change = ChangeOf(ChangeKind::kAdded, NumberOf(store, seed), seed);
    change.path = PathOf(seed, Pick(2));
    const int64_t what = known ? Pick(10) : 0;
    if (what <= 2) {
      Add(store, seed, change);
      AddWithLabels(store, seed, change);
      return;
    } else if (what <= 4) {
      change.kind = what == 3 ? ChangeKind::kMissing : ChangeKind::kChanged;
      auto& paths = model_.photos[seed].stores[store];
      if (paths.contains(change.path)) paths[change.path] = false;
    } else if (what == 5) {
      change.kind = ChangeKind::kMoved;
      change.old_path = PathOf(seed, Pick(2));
      model_.photos[seed].stores[store].erase(change.old_path);
      model_.photos[seed].stores[store][change.path] = true;
    } else if (what <= 7) {
      change.kind = ChangeKind::kSourceLabel;
      change.label = PickClass();
      model_.photos[seed].source_labels[store].insert(change.label);
    } else {
      change.kind = ChangeKind::kDeleted;
      Delete(store, seed);
    }
    Apply(store, {change});
    Reapply(store, change);
  }

  // In one call, as an import of labelled photos sends them.
  void AddWithLabels(const std::string& store, int64_t seed, const Change& added) {
    std::vector<Change> changes = {added};
    for (int64_t labels = Pick(3); labels > 0; --labels) {
      changes.push_back(added);
      changes.back().kind = ChangeKind::kSourceLabel;
      changes.back().label = PickClass();
      model_.photos[seed].source_labels[store].insert(changes.back().label);
    }
    if (Pick(6) == 0) {
      changes.push_back(added);
      changes.back().kind = ChangeKind::kDeleted;
      Delete(store, seed);
    }
    Apply(store, changes);
    Reapply(store, changes.back());
  }

  void Add(const std::string& store, int64_t seed, Change& change) {
    auto& photo = model_.photos[seed];
    if (photo.life == 0) photo.life = ++lives_;
    if (Pick(4) == 0) change.part = photo::Part::kTest;
    photo.test |= change.part == photo::Part::kTest;
    photo.stores[store][change.path] = true;
  }

  void Delete(const std::string& store, int64_t seed) {
    auto& photo = model_.photos[seed];
    deleted_.push_back({store, numbers_[{store, seed}], seed, photo.life});
    numbers_.erase({store, seed});
    photo.stores.erase(store);
    photo.source_labels.erase(store);
    if (photo.stores.empty()) model_.photos.erase(seed);
  }

  // An entry that was applied already changes nothing.
  void Reapply(const std::string& store, Change change) {
    change.sequence = sequences_[store];
    ASSERT_EQ(*db_->ApplyChanges(store, {&change, 1}), change.sequence);
  }

  // Outcomes that were under way when their store deleted the photo: they count while another store
  // has it, and are skipped when none has.
  std::vector<LabelOutcome> OutcomesOfDeleted(int64_t version, const std::string& store) {
    std::vector<LabelOutcome> outcomes;
    for (const Deleted& gone : deleted_) {
      if (gone.store != store || Pick(4) != 0) continue;
      outcomes.push_back(
          {.number = gone.number, .label = Label("cat"), .confidence = 1, .reason = {}});
      const auto photo = model_.photos.find(gone.seed);
      if (photo == model_.photos.end() || photo->second.life != gone.life) continue;
      model_.WriteOutcome(version, gone.seed, {"cat", 1});
    }
    return outcomes;
  }

  void WriteSome() {
    if (versions_.empty()) return;
    const int64_t version = versions_[static_cast<size_t>(Pick(std::ssize(versions_)))];
    const std::string& store = PickStore();
    std::vector<LabelOutcome> outcomes = OutcomesOfDeleted(version, store);
    for (int64_t seed = 1; seed <= kSeeds; ++seed) {
      const auto photo = model_.photos.find(seed);
      if (photo == model_.photos.end() || !photo->second.stores.contains(store) || Pick(3) == 0) {
        continue;
      }
      for (int64_t times = 1 + Pick(5) / 4; times > 0; --times) {
        Model::Outcome outcome;
        if (Pick(4) != 0) outcome = {PickClass(), static_cast<double>(Pick(5)) / 4};
        model_.WriteOutcome(version, seed, outcome);
        LabelOutcome written{.number = NumberOf(store, seed),
                             .label = {},
                             .confidence = outcome.confidence,
                             .reason = {}};
        if (outcome.label.empty()) written.reason = "broken";
        if (!outcome.label.empty()) written.label = Label(outcome.label);
        outcomes.push_back(written);
      }
    }
    if (outcomes.empty()) return;
    const auto written = db_->WriteOutcomes(version, store, outcomes);
    ASSERT_TRUE(written) << written.error().message;
  }

  int64_t PickVersion() { return versions_[static_cast<size_t>(Pick(std::ssize(versions_)))]; }
  std::set<std::string> PickPresent() {
    std::set<std::string> present;
    for (const auto& store : kStores) {
      if (Pick(2) == 0) present.insert(store);
    }
    return present;
  }

  void ExpectReport(const SwitchReport& report, int64_t version) {
    SwitchReport expected;
    for (const auto& [seed, photo] : model_.photos) {
      if (!photo.Present()) continue;
      const auto outcome = photo.outcomes.find(version);
      if (outcome == photo.outcomes.end()) {
        ++expected.pending;
      } else {
        ++(outcome->second.label.empty() ? expected.failed : expected.labelled);
      }
    }
    EXPECT_EQ(report.labelled, expected.labelled);
    EXPECT_EQ(report.failed, expected.failed);
    EXPECT_EQ(report.pending, expected.pending);
  }

  void CompleteOne() {
    if (versions_.empty()) return;
    const int64_t version = PickVersion();
    const auto present = PickPresent();
    const auto report = db_->Complete(version, present);
    ASSERT_EQ(report.has_value(), model_.Covers(version, present));
    if (!report) return;
    model_.complete.insert(version);
    ExpectReport(*report, version);
  }

  void SwitchOneAtOnce() {
    if (versions_.empty()) return;
    const int64_t version = PickVersion();
    const auto report = db_->SwitchAtOnce(version);
    ASSERT_EQ(report.has_value(), model_.complete.contains(version));
    if (!report) return;
    model_.Switch(version);
    RememberServed();
    ++switches_at_once_;
    ExpectReport(*report, version);
  }

  void SwitchOne() {
    if (versions_.empty()) return;
    const int64_t version = PickVersion();
    const auto present = PickPresent();
    const auto report = db_->Switch(version, present);
    ASSERT_EQ(report.has_value(), model_.MaySwitch(version, present));
    if (!report) {
      ASSERT_EQ(report.error().code, ErrorCode::kFailedPrecondition);
      return;
    }
    model_.Switch(version);
    ++switches_;
    RememberServed();
    ExpectReport(*report, version);
    ASSERT_TRUE(db_->DropOldOutcomes({}));
    ForgetPruned();
  }

  void RememberServed() {
    if (last_served_.empty() || last_served_.back() != *model_.serving) {
      last_served_.push_back(*model_.serving);
    }
  }

  int64_t CountOutcomes(int64_t version) {
    return std::ranges::count_if(
        model_.photos, [&](const auto& item) { return item.second.outcomes.contains(version); });
  }

  // The outcomes that the documentation allows to be dropped: of versions that readers neither see
  // nor saw last, where no photo shows them.
  void ForgetPruned() {
    for (const int64_t version : versions_) {
      const auto state = db_->GetVersion(version)->state;
      const bool last = last_served_.size() > 1 && last_served_[last_served_.size() - 2] == version;
      if (state != VersionState::kRetired || last) continue;
      if (CountOutcomes(version) > 0) model_.complete.erase(version);
      for (auto& [seed, photo] : model_.photos) {
        if (photo.shown != version) photo.outcomes.erase(version);
      }
    }
  }

  void Correct() {
    const int64_t seed = 1 + Pick(kSeeds);
    const std::string label = Pick(3) == 0 ? "" : PickClass();
    const auto set = db_->SetUserLabel(IdOf(seed), label);
    ASSERT_EQ(set.has_value(), model_.photos.contains(seed));
    if (set) model_.photos[seed].correction = label;
  }

  void CheckPhotos() {
    for (int64_t seed = 1; seed <= kSeeds; ++seed) {
      const auto label = db_->LabelOf(IdOf(seed));
      ASSERT_TRUE(label) << label.error().message;
      const auto found = model_.photos.find(seed);
      const Model::Photo photo = found == model_.photos.end() ? Model::Photo() : found->second;
      const std::string user = photo.UserLabel();
      const Model::Outcome* shown = photo.Shown();
      const bool model_labelled = shown != nullptr && !shown->label.empty();
      ASSERT_EQ(label->has_value(), !user.empty() || model_labelled) << "photo " << seed;
      if (!label->has_value()) continue;
      EXPECT_EQ((*label)->label_name, user.empty() ? shown->label : user);
      EXPECT_EQ((*label)->version, user.empty() ? *photo.shown : 0);
      EXPECT_EQ((*label)->confidence, user.empty() ? shown->confidence : 1);
      EXPECT_EQ(photo.PresentIn((*label)->store), photo.Present());
    }
  }

  void CheckSearch(const std::string& name, std::optional<LabelSource> source) {
    struct Hit {
      double confidence;
      photo::PhotoId id;
      bool operator==(const Hit&) const = default;
    };
    std::vector<Hit> expected;
    for (const auto& [seed, photo] : model_.photos) {
      if (!photo.Present()) continue;
      const std::string user = photo.UserLabel();
      const Model::Outcome* shown = photo.Shown();
      if (user == name && source != LabelSource::kModel) expected.push_back({1, IdOf(seed)});
      const bool outranked = !user.empty() && source != LabelSource::kModel;
      if (!outranked && source != LabelSource::kUser && shown != nullptr && shown->label == name) {
        expected.push_back({shown->confidence, IdOf(seed)});
      }
    }
    std::ranges::sort(expected, [](const Hit& a, const Hit& b) {
      return a.confidence != b.confidence ? a.confidence > b.confidence : a.id < b.id;
    });
    const int64_t limit = 1 + Pick(kSeeds);
    if (std::ssize(expected) > limit) expected.resize(static_cast<size_t>(limit));
    const auto found = db_->Search(name, source, limit);
    ASSERT_TRUE(found) << found.error().message;
    std::vector<Hit> hits;
    for (const auto& hit : *found) hits.push_back({hit.confidence, hit.id});
    EXPECT_EQ(hits, expected) << name;
  }

  void CheckVersionSearch(const std::string& name) {
    if (versions_.empty()) return;
    const int64_t version = PickVersion();
    const auto found = db_->SearchVersion(version, name, 100);
    ASSERT_EQ(found.has_value(), model_.complete.contains(version));
    if (!found) return;
    std::map<photo::PhotoId, double> expected, hits;
    for (const auto& [seed, photo] : model_.photos) {
      const auto outcome = photo.outcomes.find(version);
      if (!photo.Present() || outcome == photo.outcomes.end()) continue;
      if (outcome->second.label == name) expected[IdOf(seed)] = outcome->second.confidence;
    }
    for (const auto& hit : *found) {
      EXPECT_EQ(hit.version, version);
      hits[hit.id] = hit.confidence;
    }
    EXPECT_EQ(hits, expected) << name;
    EXPECT_TRUE(std::ranges::is_sorted(*found, std::ranges::greater(), &PhotoLabel::confidence));
  }

  void CheckCounts() {
    LabelCounts expected;
    std::map<std::string, int64_t> by_store;
    for (const auto& [seed, photo] : model_.photos) {
      for (const auto& store : kStores) by_store[store] += photo.PresentIn(store) ? 1 : 0;
      if (!photo.Present()) {
        ++expected.missing;
        continue;
      }
      ++expected.photos;
      expected.user_labelled += photo.UserLabel().empty() ? 0 : 1;
      const Model::Outcome* shown = photo.Shown();
      if (shown == nullptr) continue;
      ++(shown->label.empty() ? expected.failed : expected.labelled);
      expected.pending += photo.shown != model_.serving ? 1 : 0;
    }
    const auto counts = db_->Counts();
    ASSERT_TRUE(counts);
    EXPECT_EQ(counts->photos, expected.photos);
    EXPECT_EQ(counts->missing, expected.missing);
    EXPECT_EQ(counts->labelled, expected.labelled);
    EXPECT_EQ(counts->failed, expected.failed);
    EXPECT_EQ(counts->pending, expected.pending);
    EXPECT_EQ(counts->user_labelled, expected.user_labelled);
    for (const auto& store : kStores) EXPECT_EQ(*db_->CountPhotosOf(store), by_store[store]);
  }

  void CheckVersions() {
    for (const int64_t version : versions_) {
      int64_t outcomes = 0;
      std::set<photo::PhotoId> missing;
      for (const auto& [seed, photo] : model_.photos) {
        const bool has = photo.outcomes.contains(version);
        outcomes += has ? 1 : 0;
        if (!has && photo.Present()) missing.insert(IdOf(seed));
      }
      EXPECT_EQ(*db_->CountOutcomes(version), outcomes) << "version " << version;
      EXPECT_EQ(db_->GetVersion(version)->is_complete, model_.complete.contains(version))
          << "version " << version;
      std::set<photo::PhotoId> found;
      const auto without = db_->WithoutOutcome(version, 0, 1000);
      ASSERT_TRUE(without);
      for (const auto& photo : *without) found.insert(photo.id);
      EXPECT_EQ(found, missing) << "version " << version;
    }
  }

  void CheckComparison() {
    if (versions_.empty()) return;
    const int64_t first = PickVersion();
    const int64_t second = PickVersion();
    const auto compared = db_->Compare(first, second, 3);
    ASSERT_EQ(compared.has_value(), CountOutcomes(first) > 0 && CountOutcomes(second) > 0);
    if (!compared) return;
    VersionComparison expected;
    for (const auto& [seed, photo] : model_.photos) {
      if (!photo.Present()) continue;
      const auto a = photo.outcomes.find(first);
      const auto b = photo.outcomes.find(second);
      const bool in_first = a != photo.outcomes.end();
      const bool in_second = b != photo.outcomes.end();
      if (in_first && !in_second) ++expected.only_first;
      if (!in_first && in_second) ++expected.only_second;
      if (!in_first || !in_second) continue;
      ++(a->second.label == b->second.label ? expected.same : expected.changed);
      const std::string user = photo.UserLabel();
      if (user.empty()) continue;
      ++expected.all.photos;
      expected.all.first_right += a->second.label == user ? 1 : 0;
      expected.all.second_right += b->second.label == user ? 1 : 0;
    }
    EXPECT_EQ(compared->same, expected.same);
    EXPECT_EQ(compared->changed, expected.changed);
    EXPECT_EQ(compared->only_first, expected.only_first);
    EXPECT_EQ(compared->only_second, expected.only_second);
    EXPECT_EQ(compared->all.photos, expected.all.photos);
    EXPECT_EQ(compared->all.first_right, expected.all.first_right);
    EXPECT_EQ(compared->all.second_right, expected.all.second_right);
    EXPECT_EQ(std::ssize(compared->examples), std::min<int64_t>(3, expected.changed));
  }

  void CheckTraining() {
    const auto photos = db_->TrainingPhotos();
    ASSERT_TRUE(photos);
    std::map<photo::PhotoId, std::pair<std::string, photo::Part>> expected;
    for (const auto& [seed, photo] : model_.photos) {
      if (!photo.Present() || photo.UserLabel().empty()) continue;
      const auto part = photo.test ? photo::Part::kTest : photo::TrainOrHeldOut(IdOf(seed));
      expected[IdOf(seed)] = {photo.UserLabel(), part};
    }
    ASSERT_EQ(photos->size(), expected.size());
    auto next = expected.begin();
    for (const auto& photo : *photos) {
      EXPECT_EQ(photo.photo.id, next->first);
      EXPECT_EQ(photo.label, Label(next->second.first));
      EXPECT_EQ(photo.part, next->second.second);
      ++next;
    }
  }

  void CheckAll() {
    CheckPhotos();
    for (const auto& name : kClasses) {
      CheckSearch(name, std::nullopt);
      CheckSearch(name, LabelSource::kUser);
      CheckSearch(name, LabelSource::kModel);
      CheckVersionSearch(name);
    }
    CheckCounts();
    CheckVersions();
    CheckComparison();
    CheckTraining();
  }

  void Run(uint64_t seed, int steps) {
    random_.seed(seed);
    ASSERT_TRUE(db_->LabelIds(kClasses));
    for (const auto& store : kStores) ASSERT_TRUE(db_->ApplyChanges(store, {}));
    for (int step = 0; step < steps && !HasFailure(); ++step) {
      SCOPED_TRACE("seed " + std::to_string(seed) + " step " + std::to_string(step));
      const int64_t what = Pick(22);
      if (what < 9) {
        StoreChange();
      } else if (what < 14) {
        WriteSome();
      } else if (what < 16) {
        SwitchOne();
      } else if (what < 18) {
        Correct();
      } else if (what == 20) {
        CompleteOne();
      } else if (what == 21) {
        SwitchOneAtOnce();
      } else if (what == 18 && versions_.size() < 6) {
        versions_.push_back(MakeVersion(kClasses));
        ASSERT_TRUE(db_->MarkDistributed(versions_.back()));
      } else if (Pick(10) == 0) {
        Reopen();
      }
      CheckAll();
    }
  }

  std::mt19937_64 random_;
  Model model_;
  std::vector<int64_t> versions_;
  std::vector<int64_t> last_served_;
  std::map<std::pair<std::string, int64_t>, int64_t> numbers_;
  std::map<std::string, int64_t> last_number_;
  std::vector<Deleted> deleted_;
  int64_t lives_ = 0;
  int switches_ = 0;
  int switches_at_once_ = 0;
};

class RandomOperations : public RandomOperationsTest, public testing::WithParamInterface<int> {};

TEST_P(RandomOperations, AgreeWithThePlainModel) {
  Run(static_cast<uint64_t>(GetParam()), 600);
  EXPECT_GT(switches_, 0);
  EXPECT_GT(switches_at_once_, 0);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomOperations, testing::Range(1, 9));

}  // namespace
}  // namespace ndpipe::label
