#include "ndpipe/label/label_database.h"

#include <gmock/gmock.h>
#include <sqlite3.h>

#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <set>

#include "ndpipe/label/label_fixture.h"

namespace ndpipe::label {
namespace {

using photo::ChangeKind;
using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using testing::Not;
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

TEST_F(LabelDatabaseTest, FailuresAreThoseOfTheServingVersionWithTheirReasons) {
  AddPhotos("one", 1, 4);
  EXPECT_TRUE(db_->Failures(10)->empty());
  const int64_t version = MakeVersion({"cat"});
  ASSERT_TRUE(Write(version, "one", 1, 2, "cat"));
  ASSERT_TRUE(Write(version, "one", 3, 4, ""));
  EXPECT_TRUE(db_->Failures(10)->empty());  // readers do not see it yet
  ASSERT_TRUE(db_->MarkDistributed(version));
  ASSERT_TRUE(db_->Switch(version, {"one"}));
  const auto failures = db_->Failures(10).value();
  ASSERT_EQ(failures.size(), 2u);
  std::set<photo::PhotoId> ids;
  for (const auto& failure : failures) {
    ids.insert(failure.id);
    EXPECT_EQ(failure.reason, "broken");
    EXPECT_EQ(failure.version, version);
    EXPECT_EQ(failure.store, "one");
    EXPECT_EQ(failure.origin, "from one");
  }
  EXPECT_EQ(ids, (std::set{IdOf(3), IdOf(4)}));
  EXPECT_EQ(db_->Failures(1)->size(), 1u);
  EXPECT_EQ(db_->Failures(0).error().code, ErrorCode::kInvalidArgument);
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

// The files of the database as one text, to look for bytes in.
std::string BytesOnDisk(const std::filesystem::path& folder) {
  std::string all;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream file(entry.path(), std::ios::binary);
    all.append(std::istreambuf_iterator<char>(file), {});
  }
  return all;
}

TEST_F(LabelDatabaseTest, DeletionReachesEveryByteOfThePhoto) {
  auto added = ChangeOf(ChangeKind::kAdded, 1, 1, "secret origin");
  added.path = "secret path";
  Apply("a", {added, ChangeOf(ChangeKind::kAdded, 2, 2, "kept origin")});
  const int64_t version = MakeVersion({"cat"});
  ASSERT_TRUE(db_->WriteOutcomes(
      version, "a",
      std::vector<LabelOutcome>{{.number = 1, .label = {}, .reason = "secret reason"}}));
  ASSERT_TRUE(Write(version, "a", 2, 2, "cat"));
  ASSERT_TRUE(db_->SetUserLabel(IdOf(1), "cat"));
  const photo::PhotoId id = IdOf(1);
  const std::string id_bytes(reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size());
  ASSERT_THAT(BytesOnDisk(folder_), AllOf(HasSubstr("secret"), HasSubstr(id_bytes)));

  Apply("a", {ChangeOf(ChangeKind::kDeleted, 1, 1)});
  EXPECT_THAT(BytesOnDisk(folder_), Not(AnyOf(HasSubstr("secret"), HasSubstr(id_bytes))));
  EXPECT_THAT(BytesOnDisk(folder_), HasSubstr("kept origin"));
  EXPECT_EQ(*db_->CountOutcomes(version), 1);
  EXPECT_FALSE(*db_->LabelOf(IdOf(1)));
  EXPECT_EQ(db_->SetUserLabel(IdOf(1), "cat").error().code, ErrorCode::kNotFound);
  // An outcome that was under way is skipped; the photo may come again, as another one.
  ASSERT_TRUE(Write(version, "a", 1, 1, "cat"));
  EXPECT_EQ(*db_->CountOutcomes(version), 1);
  Apply("a", {ChangeOf(ChangeKind::kAdded, 3, 1)});
  EXPECT_FALSE(*db_->LabelOf(IdOf(1)));
  EXPECT_EQ(db_->WithoutOutcome(version, 0, 10)->size(), 1);
}

TEST_F(LabelDatabaseTest, ChangesAreAppliedOnceAndInOrder) {
  AddPhotos("a", 1, 3);
  std::vector<photo::Change> changes;
  for (int64_t sequence = 2; sequence <= 5; ++sequence) {
    changes.push_back(ChangeOf(ChangeKind::kAdded, sequence, sequence));
    changes.back().sequence = sequence;
  }
  EXPECT_EQ(*db_->ApplyChanges("a", changes), 5);
  EXPECT_EQ(*db_->ApplyChanges("a", changes), 5);
  EXPECT_EQ(*db_->CountPhotosOf("a"), 5);
  EXPECT_EQ(*db_->AppliedChanges("a"), 5);
  EXPECT_EQ(*db_->AppliedChanges("unknown"), 0);

  // A gap inside the batch: nothing of it is kept.
  changes = {ChangeOf(ChangeKind::kAdded, 6, 6), ChangeOf(ChangeKind::kAdded, 8, 8)};
  changes[0].sequence = 6;
  changes[1].sequence = 8;
  EXPECT_EQ(db_->ApplyChanges("a", changes).error().code, ErrorCode::kOutOfRange);
  EXPECT_EQ(*db_->AppliedChanges("a"), 5);
  EXPECT_EQ(*db_->CountPhotosOf("a"), 5);
}

TEST_F(LabelDatabaseTest, RefusesChangesThatNoCatalogWrites) {
  AddPhotos("a", 1, 2);
  const auto refused = [&](photo::Change change) {
    change.sequence = 3;
    const auto applied = db_->ApplyChanges("a", std::vector{change});
    return !applied && applied.error().code == ErrorCode::kInvalidArgument &&
           *db_->AppliedChanges("a") == 2;
  };
  EXPECT_TRUE(refused(ChangeOf(ChangeKind::kAdded, 1, 2)));  // the number of another photo
  EXPECT_TRUE(refused(ChangeOf(ChangeKind::kAdded, 3, 2)));  // a second number
  EXPECT_TRUE(refused(ChangeOf(ChangeKind::kAdded, 0, 3)));
  EXPECT_TRUE(refused(ChangeOf(ChangeKind::kMissing, 9, 9)));
  EXPECT_TRUE(refused(ChangeOf(ChangeKind::kSourceLabel, 1, 1, "")));
  EXPECT_TRUE(refused(ChangeOf(ChangeKind::kSourceLabel, 1, 1, std::string(2000, 'x'))));
  EXPECT_TRUE(refused(ChangeOf(static_cast<ChangeKind>(77), 1, 1)));
  auto long_path = ChangeOf(ChangeKind::kAdded, 3, 3);
  long_path.path = std::string(1 << 20, 'x');
  EXPECT_TRUE(refused(long_path));
  EXPECT_EQ(db_->ApplyChanges("", {}).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(LabelDatabaseTest, ATestPhotoOfOneStoreIsOneEverywhere) {
  Apply("a", {ChangeOf(ChangeKind::kAdded, 1, 1), ChangeOf(ChangeKind::kSourceLabel, 1, 1, "cat")});
  auto test = ChangeOf(ChangeKind::kAdded, 7, 1);
  test.part = photo::Part::kTest;
  Apply("b", {test});
  Apply("c", {ChangeOf(ChangeKind::kAdded, 2, 1)});
  const auto photos = db_->TrainingPhotos();
  ASSERT_EQ(photos->size(), 1);
  EXPECT_EQ(photos->front().part, photo::Part::kTest);
  ASSERT_EQ(photos->front().photo.replicas.size(), 3);
  EXPECT_EQ(photos->front().photo.replicas[1].store, "b");
  EXPECT_EQ(photos->front().photo.replicas[1].number, 7);
}

TEST_F(LabelDatabaseTest, KnowsWhatLiesNowhereElse) {
  AddPhotos("a", 1, 3);
  AddPhotos("b", 2, 5);
  AddPhotos("c", 1, 1);
  EXPECT_TRUE(*db_->HasPhotosAlone("a", {"b"}));
  EXPECT_FALSE(*db_->HasPhotosAlone("a", {"b", "c"}));
  EXPECT_FALSE(*db_->HasPhotosAlone("a", {"a", "b", "c"}));
  EXPECT_TRUE(*db_->HasPhotosAlone("a", {}));
  EXPECT_TRUE(*db_->HasPhotosAlone("b", {"a", "c"}));
  EXPECT_FALSE(*db_->HasPhotosAlone("unknown", {"a"}));
  Apply("c", {ChangeOf(ChangeKind::kMissing, 1, 1)});
  EXPECT_TRUE(*db_->HasPhotosAlone("a", {"b", "c"}));
}

TEST_F(LabelDatabaseTest, SourceLabelsThatDisagreeCountAsNoneUntilAUserDecides) {
  Apply("a", {ChangeOf(ChangeKind::kAdded, 1, 1), ChangeOf(ChangeKind::kSourceLabel, 1, 1, "cat")});
  EXPECT_THAT(Seen(1), Pair("cat", 0));
  Apply("b", {ChangeOf(ChangeKind::kAdded, 5, 1), ChangeOf(ChangeKind::kSourceLabel, 5, 1, "dog")});
  EXPECT_THAT(Seen(1), Pair("", 0));
  EXPECT_EQ(db_->TrainingPhotos()->size(), 0);
  ASSERT_TRUE(db_->SetUserLabel(IdOf(1), "owl"));
  EXPECT_THAT(Seen(1), Pair("owl", 0));
  EXPECT_EQ(db_->Search("owl", LabelSource::kUser, 10)->size(), 1);
  ASSERT_TRUE(db_->SetUserLabel(IdOf(1), ""));
  EXPECT_THAT(Seen(1), Pair("", 0));
  Apply("b", {ChangeOf(ChangeKind::kDeleted, 5, 1)});
  EXPECT_THAT(Seen(1), Pair("cat", 0));
}

TEST_F(LabelDatabaseTest, VersionsMoveOnlyAlongTheirStates) {
  AddPhotos("a", 1, 1);
  const int64_t first = MakeVersion({"cat"});
  const int64_t other = MakeVersion({"cat"}, 2);
  ASSERT_TRUE(Write(first, "a", 1, 1, "cat"));
  ASSERT_TRUE(Write(other, "a", 1, 1, "cat"));
  const auto early = db_->Switch(first, {"a"});
  EXPECT_EQ(early.error().code, ErrorCode::kFailedPrecondition);
  EXPECT_THAT(early.error().message, AllOf(HasSubstr("staged"), HasSubstr("serving")));
  EXPECT_FALSE(*db_->ServingVersion());
  EXPECT_EQ(db_->MarkDistributed(99).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(db_->Switch(99, {}).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(db_->GetVersion(99).error().code, ErrorCode::kNotFound);

  for (const int64_t version : {first, other, first}) {
    ASSERT_TRUE(db_->MarkDistributed(version));
    ASSERT_TRUE(db_->MarkDistributed(version));
    ASSERT_TRUE(db_->Switch(version, {"a"}));
    ASSERT_TRUE(db_->Switch(version, {"a"}));
    EXPECT_EQ(**db_->ServingVersion(), version);
  }
  // Of two backbones each has its serving version.
  EXPECT_EQ(db_->GetVersion(first)->state, VersionState::kServing);
  EXPECT_EQ(db_->GetVersion(other)->state, VersionState::kServing);
}

TEST_F(LabelDatabaseTest, RollsBackToTheRetiredVersionWithItsLabels) {
  AddPhotos("a", 1, 3);
  const int64_t first = MakeVersion({"cat"});
  const int64_t second = MakeVersion({"dog"});
  for (const auto& [version, label] : {std::pair(first, "cat"), std::pair(second, "dog")}) {
    ASSERT_TRUE(db_->MarkDistributed(version));
    ASSERT_TRUE(Write(version, "a", 1, 3, label));
    ASSERT_TRUE(db_->Switch(version, {"a"}));
  }
  ASSERT_TRUE(db_->Switch(first, {"a"}));
  EXPECT_THAT(Seen(2), Pair("cat", first));
  EXPECT_EQ(db_->GetVersion(second)->state, VersionState::kRetired);
}

TEST_F(LabelDatabaseTest, OldOutcomesStayUntilTheyAreDropped) {
  AddPhotos("a", 1, 3);
  std::vector<int64_t> versions;
  for (const char* label : {"cat", "dog", "cow"}) {
    versions.push_back(MakeVersion({label}));
    ASSERT_TRUE(db_->MarkDistributed(versions.back()));
    EXPECT_EQ(db_->WithoutOutcome(versions.back(), 0, 10)->size(), 3U);
    ASSERT_TRUE(Write(versions.back(), "a", 1, 3, label));
    EXPECT_THAT(*db_->WithoutOutcome(versions.back(), 0, 10), testing::IsEmpty());
    ASSERT_TRUE(db_->Switch(versions.back(), {"a"}));
  }
  std::stop_source stop;
  stop.request_stop();
  ASSERT_TRUE(db_->DropOldOutcomes(stop.get_token()));
  EXPECT_EQ(*db_->CountOutcomes(versions[0]), 3);
  ASSERT_TRUE(db_->DropOldOutcomes({}));
  EXPECT_EQ(*db_->CountOutcomes(versions[0]), 0);
  EXPECT_EQ(*db_->CountOutcomes(versions[1]), 3);  // readers may go back to it
  EXPECT_THAT(Seen(2), Pair("cow", versions[2]));
  // Who goes further back labels again.
  EXPECT_EQ(db_->Switch(versions[0], {"a"}).error().code, ErrorCode::kFailedPrecondition);
  EXPECT_EQ(db_->WithoutOutcome(versions[0], 0, 10)->size(), 3U);
}

TEST_F(LabelDatabaseTest, RefusesOutcomesThatCannotBe) {
  AddPhotos("a", 1, 3);
  const int64_t version = MakeVersion({"cat"});
  ASSERT_TRUE(db_->LabelIds(std::vector<std::string>{"elsewhere"}));
  EXPECT_EQ(Write(99, "a", 1, 1, "cat").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(Write(version, "nobody", 1, 1, "cat").error().code, ErrorCode::kNotFound);
  const auto code = ErrorCode::kInvalidArgument;
  EXPECT_EQ(Write(version, "a", 1, 1, "elsewhere").error().code, code);
  EXPECT_EQ(Write(version, "a", 1, 1, "cat", 1.5).error().code, code);
  EXPECT_EQ(Write(version, "a", 1, 1, "cat", std::nan("")).error().code, code);
  EXPECT_EQ(Write(version, "a", 0, 0, "cat").error().code, code);
  // One stranger among them: none is written.
  EXPECT_EQ(Write(version, "a", 1, 4, "cat").error().code, code);
  const auto far = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(Write(version, "a", far - 1, far - 1, "cat").error().code, code);
  EXPECT_EQ(*db_->CountOutcomes(version), 0);
}

TEST_F(LabelDatabaseTest, ALaterOutcomeReplacesAnEarlierOne) {
  AddPhotos("a", 1, 1);
  const int64_t version = MakeVersion({"cat", "dog"});
  ASSERT_TRUE(db_->MarkDistributed(version));
  ASSERT_TRUE(Write(version, "a", 1, 1, ""));
  ASSERT_TRUE(Write(version, "a", 1, 1, "cat", 0.25));
  ASSERT_TRUE(Write(version, "a", 1, 1, "dog", 0.75));
  ASSERT_TRUE(db_->Switch(version, {"a"}));
  EXPECT_EQ(*db_->CountOutcomes(version), 1);
  EXPECT_EQ(db_->Counts()->failed, 0);
  EXPECT_EQ(db_->Search("cat", std::nullopt, 10)->size(), 0);
  const auto labels = db_->ModelLabels(version, 0, 10);
  ASSERT_EQ(labels->size(), 1);
  EXPECT_EQ(labels->front().label_name, "dog");
  EXPECT_EQ(labels->front().confidence, 0.75);
  EXPECT_EQ(labels->front().path, "photos/1.jpg");
  EXPECT_EQ(labels->front().origin, "from a");
  EXPECT_EQ(db_->ModelLabels(version, labels->front().photo, 10)->size(), 0);
}

TEST_F(LabelDatabaseTest, VocabularyGivesEachNameOneIdForGood) {
  const std::vector<std::string> names = {"cat", "dog", "cat"};
  const auto ids = db_->LabelIds(names);
  ASSERT_TRUE(ids);
  EXPECT_EQ((*ids)[0], (*ids)[2]);
  EXPECT_NE((*ids)[0], (*ids)[1]);
  Reopen();
  EXPECT_EQ(*db_->LabelIds(names), *ids);
  EXPECT_EQ(*db_->LabelNames(*ids), names);
  EXPECT_FALSE(*db_->FindLabel("owl"));
  EXPECT_EQ(db_->LabelNames(std::vector<LabelId>{99}).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(db_->LabelIds(std::vector<std::string>{"owl", ""}).error().code,
            ErrorCode::kInvalidArgument);
  EXPECT_FALSE(*db_->FindLabel("owl"));
  ModelVersion version;
  version.classes = {99};
  EXPECT_EQ(db_->CreateVersion(version).error().code, ErrorCode::kInvalidArgument);
  version.classes = {};
  EXPECT_EQ(db_->CreateVersion(version).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(db_->ListVersions()->size(), 0);
}

TEST_F(LabelDatabaseTest, AVersionComesBackAsItWasMade) {
  ModelVersion made;
  made.backbone = Sha256::Of("backbone");
  made.cut = "/features/out";
  made.tail = Sha256::Of("tail");
  made.classes = *db_->LabelIds(std::vector<std::string>{"b", "a", "b"});
  made.created_us = 17;
  made.job = 4;
  const int64_t number = *db_->CreateVersion(made);
  Reopen();
  const auto version = db_->GetVersion(number);
  ASSERT_TRUE(version);
  EXPECT_EQ(version->backbone, made.backbone);
  EXPECT_EQ(version->cut, made.cut);
  EXPECT_EQ(version->tail, made.tail);
  EXPECT_EQ(version->classes, made.classes);
  EXPECT_EQ(version->state, VersionState::kStaged);
  EXPECT_EQ(version->created_us, 17);
  EXPECT_EQ(version->job, 4);
}

TEST_F(LabelDatabaseTest, SearchIsBounded) {
  for (const int64_t limit : {int64_t{0}, int64_t{-1}, int64_t{100'001}}) {
    EXPECT_EQ(db_->Search("cat", std::nullopt, limit).error().code, ErrorCode::kInvalidArgument);
  }
  EXPECT_EQ(db_->Search("never heard of", std::nullopt, 10)->size(), 0);
}

TEST_F(LabelDatabaseTest, RefusesANewerProgramsDatabaseAndLeavesItAlone) {
  AddPhotos("a", 1, 2);
  db_.reset();
  sqlite3* raw = nullptr;
  ASSERT_EQ(sqlite3_open(path_.c_str(), &raw), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(raw, "PRAGMA user_version=99", nullptr, nullptr, nullptr), SQLITE_OK);
  const auto newer = LabelDatabase::Open(path_);
  ASSERT_FALSE(newer);
  EXPECT_EQ(newer.error().code, ErrorCode::kFailedPrecondition);
  EXPECT_THAT(newer.error().message, HasSubstr("newer ndpipe"));
  ASSERT_EQ(sqlite3_exec(raw, "PRAGMA user_version=3", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(raw);
  Reopen();
  EXPECT_EQ(db_->Counts()->photos, 2);
}

// The migrations lead from every earlier schema to this one; the first starts from an empty file.
TEST_F(LabelDatabaseTest, MakesItsSchemaInAnEmptyFileAndRefusesWhatIsNoDatabase) {
  db_.reset();
  std::filesystem::remove(path_);
  std::ofstream(path_).close();
  Reopen();
  AddPhotos("a", 1, 1);
  EXPECT_EQ(db_->Counts()->photos, 1);
  std::ofstream(folder_ / "other") << std::string(5000, 'x');
  EXPECT_EQ(LabelDatabase::Open(folder_ / "other").error().code, ErrorCode::kDataLoss);
}

}  // namespace
}  // namespace ndpipe::label
