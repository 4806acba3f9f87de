#include "ndpipe/label/search_index.h"

#include <gmock/gmock.h>

#include "ndpipe/label/impl.h"
#include "ndpipe/label/label_fixture.h"

namespace ndpipe::label {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr int64_t kPhotos = 10;

// Version 1 with outcomes of ten photos: odd ones "dog", even ones "cat", the last one failed.
class SearchIndexTest : public LabelFixture {
 protected:
  void SetUp() override {
    LabelFixture::SetUp();
    AddPhotos("a", 1, kPhotos + 5);
    version_ = MakeVersion({"cat", "dog"});
    for (int64_t photo = 1; photo < kPhotos; ++photo) {
      ASSERT_TRUE(Write(version_, "a", photo, photo, photo % 2 == 0 ? "cat" : "dog"));
    }
    ASSERT_TRUE(Write(version_, "a", kPhotos, kPhotos, ""));
    ASSERT_TRUE(db_->MarkDistributed(version_));
    auto opened = OpenWriter(path_);
    ASSERT_TRUE(opened) << opened.error().message;
    sql_.emplace(*std::move(opened));
  }
  void TearDown() override {
    sql_.reset();
    LabelFixture::TearDown();
  }

  std::vector<int64_t> Hits(const std::string& label) {
    std::vector<int64_t> photos;
    EXPECT_TRUE(sql_->Query(
        "SELECT photo FROM hit WHERE version = ?1 AND label = ?2 ORDER BY photo",
        [&](const sqlite::Statement& row) { photos.push_back(row.Int(0)); }, version_,
        Label(label)));
    return photos;
  }

  int64_t version_ = 0;
  std::optional<sqlite::Database> sql_;
};

TEST_F(SearchIndexTest, GrowsInRunsAndThenWithItsOutcomes) {
  EXPECT_THAT(Hits("cat"), IsEmpty());
  EXPECT_EQ(*ExtendIndex(*sql_, version_, 4), true);
  EXPECT_THAT(Hits("cat"), ElementsAre(2, 4));
  EXPECT_THAT(Hits("dog"), ElementsAre(1, 3));
  // Outcomes below the end of the runs carry their hits with them, those above wait for their run.
  ASSERT_TRUE(Write(version_, "a", 3, 3, "cat"));
  ASSERT_TRUE(Write(version_, "a", 4, 4, ""));
  ASSERT_TRUE(Write(version_, "a", 5, 5, "cat"));
  EXPECT_THAT(Hits("cat"), ElementsAre(2, 3));
  EXPECT_THAT(Hits("dog"), ElementsAre(1));
  EXPECT_EQ(*ExtendIndex(*sql_, version_, 4), true);
  EXPECT_EQ(*ExtendIndex(*sql_, version_, 4), false);
  EXPECT_EQ(*ExtendIndex(*sql_, version_, 4), false);
  EXPECT_THAT(Hits("cat"), ElementsAre(2, 3, 5, 6, 8));
  EXPECT_THAT(Hits("dog"), ElementsAre(1, 7, 9));
  ASSERT_TRUE(Write(version_, "a", kPhotos + 1, kPhotos + 1, "dog"));
  EXPECT_THAT(Hits("dog"), ElementsAre(1, 7, 9, kPhotos + 1));
  Apply("a", {ChangeOf(photo::ChangeKind::kDeleted, 7, 7)});
  EXPECT_THAT(Hits("dog"), ElementsAre(1, 9, kPhotos + 1));
}

TEST_F(SearchIndexTest, IsDroppedInStepsOnceAbandonedAndFilledAgain) {
  while (*ExtendIndex(*sql_, version_, 4)) {
  }
  ASSERT_TRUE(AbandonIndex(*sql_, version_));
  EXPECT_EQ(*DropWaste(*sql_, version_, 7), true);
  EXPECT_THAT(Hits("cat"), IsEmpty());
  EXPECT_THAT(Hits("dog"), ElementsAre(7, 9));
  // Killed here: the switch that comes back to the version starts from nothing.
  for (int64_t photo = kPhotos + 1; photo <= kPhotos + 5; ++photo) {
    ASSERT_TRUE(Write(version_, "a", photo, photo, "dog"));
  }
  ASSERT_TRUE(Write(version_, "a", 7, 7, "cat"));
  ASSERT_TRUE(db_->Switch(version_, {"a"}));
  EXPECT_THAT(Hits("cat"), ElementsAre(2, 4, 6, 7, 8));
  EXPECT_THAT(Hits("dog"), ElementsAre(1, 3, 5, 9, 11, 12, 13, 14, 15));
  EXPECT_EQ(db_->Search("dog", std::nullopt, 100)->size(), 9);
}

TEST_F(SearchIndexTest, ARefusedSwitchLeavesAnIndexThatStaysRight) {
  ASSERT_FALSE(db_->Switch(version_, {"a"}));
  EXPECT_THAT(Hits("cat"), ElementsAre(2, 4, 6, 8));
  ASSERT_TRUE(Write(version_, "a", 2, kPhotos + 5, "dog"));
  ASSERT_TRUE(db_->Switch(version_, {"a"}));
  EXPECT_THAT(Hits("cat"), IsEmpty());
  EXPECT_EQ(std::ssize(Hits("dog")), kPhotos + 5);
}

}  // namespace
}  // namespace ndpipe::label
