#include <gmock/gmock.h>

#include "ndpipe/label/label_fixture.h"

namespace ndpipe::label {
namespace {

using photo::ChangeKind;
using testing::HasSubstr;

class CompareTest : public LabelFixture {
 protected:
  // A photo of a part of choice, with a source label if it is not empty.
  void AddPhoto(int64_t seed, photo::Part part, const std::string& user_label) {
    auto added = ChangeOf(ChangeKind::kAdded, seed, seed, "holiday");
    added.part = part;
    Apply("a", {added});
    if (user_label.empty()) return;
    auto label = ChangeOf(ChangeKind::kSourceLabel, seed, seed, user_label);
    label.part = part;
    Apply("a", {label});
  }
};

TEST_F(CompareTest, CountsWhatIsTheSameAndWhatChanged) {
  using enum photo::Part;
  AddPhoto(1, kTrain, "cat");
  AddPhoto(2, kTrain, "");
  AddPhoto(3, kTest, "dog");
  AddPhoto(4, kTest, "owl");  // no class of either
  AddPhoto(5, kTrain, "cat");
  AddPhoto(6, kTrain, "");
  AddPhoto(7, kTrain, "");
  const int64_t first = MakeVersion({"cat", "dog"});
  const int64_t second = MakeVersion({"cat", "dog", "cow"});
  ASSERT_TRUE(Write(first, "a", 1, 3, "cat", 0.5));
  ASSERT_TRUE(Write(first, "a", 4, 5, "dog", 0.25));
  ASSERT_TRUE(Write(first, "a", 6, 6, ""));
  ASSERT_TRUE(Write(second, "a", 1, 1, "cat", 0.5));   // same, right
  ASSERT_TRUE(Write(second, "a", 2, 2, "cow", 0.75));  // changed
  ASSERT_TRUE(Write(second, "a", 3, 3, "dog", 1));     // changed, right now
  ASSERT_TRUE(Write(second, "a", 4, 4, "dog"));        // same, wrong
  ASSERT_TRUE(Write(second, "a", 5, 5, ""));           // changed: failed now
  ASSERT_TRUE(Write(second, "a", 6, 6, ""));           // failed in both
  ASSERT_TRUE(Write(second, "a", 7, 7, "cow"));        // only here

  const auto compared = db_->Compare(first, second, 2);
  ASSERT_TRUE(compared) << compared.error().message;
  EXPECT_EQ(compared->same, 3);
  EXPECT_EQ(compared->changed, 3);
  EXPECT_EQ(compared->only_first, 0);
  EXPECT_EQ(compared->only_second, 1);
  EXPECT_EQ(compared->all.photos, 4);
  EXPECT_EQ(compared->all.first_right, 1);
  EXPECT_EQ(compared->all.second_right, 2);
  EXPECT_EQ(compared->unseen.photos, 2);
  EXPECT_EQ(compared->unseen.first_right, 0);
  EXPECT_EQ(compared->unseen.second_right, 1);

  ASSERT_EQ(compared->classes.size(), 3U);
  const auto counts = [&](size_t i) {
    const auto& row = compared->classes[i];
    return std::tuple(row.name, row.first, row.second, row.both);
  };
  EXPECT_EQ(counts(0), std::tuple("cat", 3, 1, 1));
  EXPECT_EQ(counts(1), std::tuple("cow", 0, 1, 0));
  EXPECT_EQ(counts(2), std::tuple("dog", 2, 2, 1));

  ASSERT_EQ(compared->examples.size(), 2U) << "the surest ones of three";
  EXPECT_EQ(compared->examples[0].id, IdOf(3));
  EXPECT_EQ(compared->examples[0].first, "cat");
  EXPECT_EQ(compared->examples[0].second, "dog");
  EXPECT_EQ(compared->examples[0].second_confidence, 1);
  EXPECT_EQ(compared->examples[0].user_label, "dog");
  EXPECT_EQ(compared->examples[0].store, "a");
  EXPECT_EQ(compared->examples[0].path, "photos/3.jpg");
  EXPECT_EQ(compared->examples[0].origin, "holiday");
  EXPECT_EQ(compared->examples[1].id, IdOf(2));
  EXPECT_EQ(compared->examples[1].user_label, "");
}

TEST_F(CompareTest, PhotosThatAreGoneDoNotCount) {
  AddPhotos("a", 1, 4);
  const int64_t first = MakeVersion({"cat"});
  const int64_t second = MakeVersion({"cat", "dog"});
  ASSERT_TRUE(Write(first, "a", 1, 4, "cat"));
  ASSERT_TRUE(Write(second, "a", 1, 4, "dog"));
  Apply("a", {ChangeOf(ChangeKind::kDeleted, 1, 1), ChangeOf(ChangeKind::kMissing, 2, 2)});
  const auto compared = db_->Compare(first, second, 10);
  ASSERT_TRUE(compared);
  EXPECT_EQ(compared->changed, 2);
  EXPECT_EQ(compared->only_first, 0);
  EXPECT_EQ(compared->only_second, 0);
  EXPECT_EQ(compared->examples.size(), 2U);
  EXPECT_EQ(db_->Compare(second, second, 10)->same, 2) << "with itself";
}

TEST_F(CompareTest, SaysWhatIsMissing) {
  AddPhotos("a", 1, 1);
  const int64_t first = MakeVersion({"cat"});
  const int64_t second = MakeVersion({"cat"});
  ASSERT_TRUE(Write(first, "a", 1, 1, "cat"));
  EXPECT_EQ(db_->Compare(first, 99, 1).error().code, ErrorCode::kNotFound);
  const auto none = db_->Compare(first, second, 1);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::kFailedPrecondition);
  EXPECT_THAT(none.error().message, HasSubstr("--no-switch"));
  for (const int64_t limit : {-1, 1001}) {
    EXPECT_EQ(db_->Compare(first, first, limit).error().code, ErrorCode::kInvalidArgument);
  }
  EXPECT_TRUE(db_->Compare(first, first, 0)->examples.empty());
}

}  // namespace
}  // namespace ndpipe::label
