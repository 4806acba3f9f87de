// A label database in a folder of its own, and short ways to fill it: for this folder's tests.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ndpipe/label/label_database.h"

namespace ndpipe::label {

inline photo::PhotoId IdOf(int64_t seed) { return Sha256::Of("photo " + std::to_string(seed)); }

inline photo::Change ChangeOf(photo::ChangeKind kind, int64_t number, int64_t seed,
                              const std::string& text = "") {
  photo::Change change;
  change.kind = kind;
  change.number = number;
  change.id = IdOf(seed);
  change.part = photo::TrainOrHeldOut(change.id);
  change.path = "photos/" + std::to_string(seed) + ".jpg";
  if (kind == photo::ChangeKind::kSourceLabel) change.label = text;
  if (kind == photo::ChangeKind::kAdded) change.origin = text;
  return change;
}

class LabelFixture : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(folder_);
    Reopen();
  }
  void TearDown() override {
    db_.reset();
    std::filesystem::remove_all(folder_);
  }

  void Reopen() {
    db_.reset();
    auto opened = LabelDatabase::Open(path_);
    ASSERT_TRUE(opened) << opened.error().message;
    db_ = *std::move(opened);
  }

  // Numbers the entries as the store's next ones and applies them.
  void Apply(const std::string& store, std::vector<photo::Change> changes) {
    for (auto& change : changes) change.sequence = ++sequences_[store];
    const auto applied = db_->ApplyChanges(store, changes);
    ASSERT_TRUE(applied) << applied.error().message;
    ASSERT_EQ(*applied, sequences_[store]);
  }

  // Photos `first` to `last`, whose numbers in the store are their seeds.
  void AddPhotos(const std::string& store, int64_t first, int64_t last) {
    std::vector<photo::Change> changes;
    for (int64_t seed = first; seed <= last; ++seed) {
      changes.push_back(ChangeOf(photo::ChangeKind::kAdded, seed, seed, "from " + store));
    }
    Apply(store, changes);
  }

  int64_t MakeVersion(const std::vector<std::string>& classes, int64_t backbone = 1) {
    ModelVersion version;
    version.backbone = Sha256::Of("backbone " + std::to_string(backbone));
    version.cut = "features";
    version.tail = Sha256::Of("tail");
    version.classes = *db_->LabelIds(classes);
    const auto number = db_->CreateVersion(version);
    EXPECT_TRUE(number) << number.error().message;
    return *number;
  }

  LabelId Label(const std::string& name) { return (*db_->FindLabel(name)).value(); }

  Status Write(int64_t version, const std::string& store, int64_t first, int64_t last,
               const std::string& label, double confidence = 0.5) {
    std::vector<LabelOutcome> outcomes;
    for (int64_t number = first; number <= last; ++number) {
      LabelOutcome outcome;
      outcome.number = number;
      if (!label.empty()) outcome.label = Label(label);
      outcome.confidence = confidence;
      if (label.empty()) outcome.reason = "broken";
      outcomes.push_back(outcome);
    }
    return db_->WriteOutcomes(version, store, outcomes);
  }

  // "label" or "" and the version it is of.
  std::pair<std::string, int64_t> Seen(int64_t seed) {
    const auto label = db_->LabelOf(IdOf(seed));
    EXPECT_TRUE(label);
    if (!*label) return {"", 0};
    return {(*label)->label_name, (*label)->version};
  }

  std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) / ("label_test." + std::to_string(::getpid()));
  std::filesystem::path path_ = folder_ / "labels.db";
  std::unique_ptr<LabelDatabase> db_;
  std::map<std::string, int64_t> sequences_;
};

}  // namespace ndpipe::label
