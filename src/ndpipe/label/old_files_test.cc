// Files of earlier programs, kept in tests/data: this one must read what they wrote.
#include <gmock/gmock.h>

#include <cstdlib>

#include "ndpipe/label/label_fixture.h"

namespace ndpipe::label {
namespace {

using photo::ChangeKind;
using testing::Pair;

// What the kept files hold. Made with the code of the time: NDPIPE_WRITE_TEST_DATA=FOLDER lets the
// test below write such a file (tests/data/README.md).
class OldFilesTest : public LabelFixture {
 protected:
  void Fill() {
    AddPhotos("a", 1, 4);
    AddPhotos("b", 4, 6);
    Apply("a", {ChangeOf(ChangeKind::kSourceLabel, 1, 1, "owl"),
                ChangeOf(ChangeKind::kMissing, 2, 2), ChangeOf(ChangeKind::kDeleted, 3, 3)});
    const int64_t first = MakeVersion({"cat", "dog"});
    ASSERT_TRUE(Write(first, "a", 1, 4, "cat", 0.25));
    ASSERT_TRUE(Write(first, "b", 5, 5, "dog", 0.75));
    ASSERT_TRUE(Write(first, "b", 6, 6, ""));
    ASSERT_TRUE(db_->MarkDistributed(first));
    ASSERT_TRUE(db_->Switch(first, {"a", "b"}));
    const int64_t second = MakeVersion({"cat", "dog"});
    ASSERT_TRUE(Write(second, "a", 1, 4, "dog", 0.5));
    ASSERT_TRUE(db_->MarkDistributed(second));
    ASSERT_TRUE(db_->Switch(second, {"a"}));  // b is away: its photos stay with the first version
    ASSERT_TRUE(db_->SetUserLabel(IdOf(4), "cat"));
    const int64_t third = MakeVersion({"cat"});
    ASSERT_TRUE(Write(third, "a", 1, 2, "cat"));
    ASSERT_TRUE(db_->MarkDistributed(third));
  }

  void Check() {
    EXPECT_THAT(Seen(1), Pair("owl", 0));
    EXPECT_THAT(Seen(2), Pair("dog", 2));
    EXPECT_THAT(Seen(3), Pair("", 0));
    EXPECT_THAT(Seen(4), Pair("cat", 0));
    EXPECT_THAT(Seen(5), Pair("dog", 1));
    EXPECT_THAT(Seen(6), Pair("", 0));
    const auto counts = db_->Counts();
    ASSERT_TRUE(counts);
    EXPECT_EQ(counts->photos, 4);
    EXPECT_EQ(counts->missing, 1);
    EXPECT_EQ(counts->pending, 2);
    EXPECT_EQ(counts->labelled, 3);
    EXPECT_EQ(counts->failed, 1);
    EXPECT_EQ(db_->Search("dog", LabelSource::kModel, 10)->size(), 3);
    EXPECT_EQ(db_->Search("dog", std::nullopt, 10)->size(), 1);
    EXPECT_EQ(*db_->AppliedChanges("a"), 7);
    EXPECT_EQ(db_->ListVersions()->size(), 3);
    EXPECT_EQ(**db_->ServingVersion(), 2);
    EXPECT_EQ(db_->GetVersion(3)->state, VersionState::kDistributed);
    EXPECT_EQ(*db_->CountOutcomes(3), 2);
    EXPECT_EQ(**db_->PreviousVersion(), 1);
    EXPECT_TRUE(db_->GetVersion(1)->is_complete);
    EXPECT_TRUE(db_->GetVersion(2)->is_complete);
    EXPECT_FALSE(db_->GetVersion(3)->is_complete);
  }

  void ReadAndGoOn(const char* kept_file) {
    db_.reset();
    std::filesystem::copy_file(std::filesystem::path(NDPIPE_SOURCE_DIR) / "tests/data" / kept_file,
                               path_, std::filesystem::copy_options::overwrite_existing);
    Reopen();
    Check();
    GoOn();
    Reopen();
    EXPECT_EQ(db_->Counts()->labelled, 5);
  }

  // The jobs that were under way go on.
  void GoOn() {
    sequences_ = {{"a", 7}, {"b", 3}};
    AddPhotos("b", 7, 7);
    ASSERT_TRUE(Write(2, "b", 5, 7, "cat", 0.125));
    EXPECT_THAT(Seen(5), Pair("cat", 2));
    EXPECT_EQ(db_->Search("cat", LabelSource::kModel, 10)->size(), 3);
    ASSERT_TRUE(Write(3, "a", 4, 4, "cat"));
    ASSERT_TRUE(Write(3, "b", 5, 7, "cat"));
    const auto report = db_->Switch(3, {"a", "b"});
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(report->labelled, 5);
    EXPECT_EQ(db_->Search("cat", LabelSource::kModel, 10)->size(), 5);
    EXPECT_EQ(db_->Search("dog", LabelSource::kModel, 10)->size(), 0);
  }
};

TEST_F(OldFilesTest, TodaysFileHoldsWhatTheKeptOnesHold) {
  Fill();
  ASSERT_FALSE(HasFailure());
  Check();
  if (const char* folder = std::getenv("NDPIPE_WRITE_TEST_DATA")) {
    db_.reset();  // leaves no write-ahead log behind
    std::filesystem::copy_file(path_, std::filesystem::path(folder) / "labels.db");
    return;
  }
  GoOn();
}

TEST_F(OldFilesTest, ReadsSchema1AndGoesOn) { ReadAndGoOn("labels-schema1.db"); }

TEST_F(OldFilesTest, ReadsSchema2AndGoesOn) { ReadAndGoOn("labels-schema2.db"); }

}  // namespace
}  // namespace ndpipe::label
