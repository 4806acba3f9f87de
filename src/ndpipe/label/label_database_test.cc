#include "ndpipe/label/label_database.h"

#include <gmock/gmock.h>

#include "ndpipe/label/label_fixture.h"

namespace ndpipe::label {
namespace {

using photo::ChangeKind;
using testing::HasSubstr;
using testing::Pair;

class LabelDatabaseTest : public LabelFixture {};

TEST_F(LabelDatabaseTest, ReadersSeeTheOldSetUntilTheSwitchAndThenAllOfTheNew) {
  AddPhotos("a", 1, 10);
  const int64_t first = MakeVersion({"cat", "dog"});
  ASSERT_TRUE(Write(first, "a", 1, 9, "cat"));
  ASSERT_TRUE(Write(first, "a", 10, 10, ""));
  EXPECT_THAT(Seen(1), Pair("", 0));
  ASSERT_TRUE(db_->MarkDistributed(first));
  const auto report = db_->Switch(first, {"a"});
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->labelled, 9);
  EXPECT_EQ(report->failed, 1);
  EXPECT_EQ(report->pending, 0);
  EXPECT_THAT(Seen(1), Pair("cat", first));

  const int64_t second = MakeVersion({"cat", "dog"});
  ASSERT_TRUE(db_->MarkDistributed(second));
  ASSERT_TRUE(Write(second, "a", 1, 5, "dog"));
  EXPECT_THAT(Seen(1), Pair("cat", first));
  EXPECT_EQ(db_->Switch(second, {"a"}).error().code, ErrorCode::kFailedPrecondition);
  EXPECT_THAT(Seen(1), Pair("cat", first));
  EXPECT_EQ(db_->WithoutOutcome(second, 0, 100)->size(), 5);
  ASSERT_TRUE(Write(second, "a", 6, 10, "dog"));
  ASSERT_TRUE(db_->Switch(second, {"a"}));
  EXPECT_THAT(Seen(1), Pair("dog", second));
  EXPECT_EQ(db_->Search("dog", std::nullopt, 100)->size(), 10);
  EXPECT_EQ(db_->Search("cat", std::nullopt, 100)->size(), 0);
  EXPECT_EQ(**db_->ServingVersion(), second);
  EXPECT_EQ(db_->GetVersion(first)->state, VersionState::kRetired);
}

TEST_F(LabelDatabaseTest, PhotosOfAnAbsentStoreStayPendingUntilTheServingVersionCoversThem) {
  AddPhotos("a", 1, 4);
  AddPhotos("b", 4, 8);  // photo 4 lies in both
  const int64_t first = MakeVersion({"cat", "dog"});
  ASSERT_TRUE(db_->MarkDistributed(first));
  ASSERT_TRUE(Write(first, "a", 1, 4, "cat"));
  ASSERT_TRUE(Write(first, "b", 5, 8, "cat"));
  ASSERT_TRUE(db_->Switch(first, {"a", "b"}));

  const int64_t second = MakeVersion({"cat", "dog"});
  ASSERT_TRUE(db_->MarkDistributed(second));
  ASSERT_TRUE(Write(second, "a", 1, 3, "dog"));
  EXPECT_THAT(db_->Switch(second, {"a"}).error().message, HasSubstr("1 photos"));
  ASSERT_TRUE(Write(second, "a", 4, 4, "dog"));
  const auto report = db_->Switch(second, {"a"});
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->pending, 4);
  EXPECT_EQ(db_->Counts()->pending, 4);
  EXPECT_EQ(db_->Counts()->labelled, 8);
  EXPECT_THAT(Seen(4), Pair("dog", second));
  EXPECT_THAT(Seen(5), Pair("cat", first));
  EXPECT_EQ(db_->Search("cat", LabelSource::kModel, 100)->size(), 4);

  ASSERT_TRUE(Write(second, "b", 5, 6, "dog"));
  EXPECT_EQ(db_->Counts()->pending, 2);
  EXPECT_THAT(Seen(5), Pair("dog", second));
  EXPECT_THAT(Seen(7), Pair("cat", first));
}

}  // namespace
}  // namespace ndpipe::label
