// Switching at once: versions whose outcomes are complete and kept, back and forth.
#include <gmock/gmock.h>

#include "ndpipe/label/label_fixture.h"

namespace ndpipe::label {
namespace {

using testing::HasSubstr;
using testing::Pair;

class SwitchTest : public LabelFixture {
 protected:
  // A version that labels photos first … last of store a.
  int64_t Labelled(const std::string& label, int64_t first, int64_t last) {
    const int64_t version = MakeVersion({label});
    EXPECT_TRUE(Write(version, "a", first, last, label));
    EXPECT_TRUE(db_->MarkDistributed(version));
    return version;
  }
  bool IsComplete(int64_t version) { return db_->GetVersion(version)->is_complete; }
};

TEST_F(SwitchTest, LegalTransitionsAreThoseOfTheHeader) {
  using enum VersionState;
  const std::set<std::pair<VersionState, VersionState>> legal = {{kStaged, kDistributed},
                                                                 {kDistributed, kServing},
                                                                 {kServing, kRetired},
                                                                 {kDistributed, kRetired},
                                                                 {kRetired, kServing}};
  for (const auto from : {kStaged, kDistributed, kServing, kRetired}) {
    for (const auto to : {kStaged, kDistributed, kServing, kRetired}) {
      EXPECT_EQ(IsLegal(from, to), legal.contains({from, to}))
          << VersionStateName(from) << " → " << VersionStateName(to);
    }
  }
}

TEST_F(SwitchTest, GoesBackAtOnceAndPhotosThatCameSinceArePending) {
  AddPhotos("a", 1, 3);
  const int64_t first = Labelled("cat", 1, 3);
  EXPECT_FALSE(*db_->PreviousVersion());
  ASSERT_TRUE(db_->Switch(first, {"a"}));
  EXPECT_FALSE(*db_->PreviousVersion());
  const int64_t second = Labelled("dog", 1, 3);
  ASSERT_TRUE(db_->Switch(second, {"a"}));
  EXPECT_EQ(**db_->PreviousVersion(), first);
  AddPhotos("a", 4, 5);
  ASSERT_TRUE(Write(second, "a", 4, 4, "dog"));

  const auto back = db_->SwitchAtOnce(first);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->labelled, 3);
  EXPECT_EQ(back->pending, 2);
  EXPECT_EQ(**db_->ServingVersion(), first);
  EXPECT_EQ(**db_->PreviousVersion(), second);
  EXPECT_EQ(db_->GetVersion(second)->state, VersionState::kRetired);
  EXPECT_THAT(Seen(1), Pair("cat", first));
  EXPECT_THAT(Seen(4), Pair("dog", second)) << "it keeps what readers saw of it";
  EXPECT_THAT(Seen(5), Pair("", 0));
  EXPECT_EQ(db_->Counts()->pending, 1);
  EXPECT_EQ(db_->WithoutOutcome(first, 0, 10)->size(), 2U);
  EXPECT_EQ(db_->Search("cat", LabelSource::kModel, 10)->size(), 3U);
  // The relabel that follows.
  ASSERT_TRUE(Write(first, "a", 4, 5, "cat"));
  EXPECT_THAT(Seen(4), Pair("cat", first));
  EXPECT_EQ(db_->Counts()->pending, 0);
  EXPECT_EQ(db_->Search("cat", LabelSource::kModel, 10)->size(), 5U);
  // And forth, and the same again changes nothing.
  ASSERT_TRUE(db_->SwitchAtOnce(second));
  ASSERT_TRUE(db_->SwitchAtOnce(second));
  EXPECT_THAT(Seen(1), Pair("dog", second));
  EXPECT_THAT(Seen(5), Pair("cat", first));
  EXPECT_EQ(**db_->PreviousVersion(), first);
}

TEST_F(SwitchTest, AVersionIsCompletedWithoutReadersNoticing) {
  AddPhotos("a", 1, 3);
  AddPhotos("b", 4, 4);
  const int64_t first = Labelled("cat", 1, 3);
  ASSERT_TRUE(db_->Switch(first, {"a"}));
  const int64_t second = MakeVersion({"dog"});
  EXPECT_EQ(db_->Complete(second, {"a"}).error().code, ErrorCode::kFailedPrecondition) << "staged";
  ASSERT_TRUE(db_->MarkDistributed(second));
  ASSERT_TRUE(Write(second, "a", 1, 2, "dog"));
  const auto early = db_->Complete(second, {"a"});
  ASSERT_FALSE(early);
  EXPECT_THAT(early.error().message, HasSubstr("1 photos of present stores"));
  EXPECT_FALSE(IsComplete(second));
  EXPECT_EQ(db_->SwitchAtOnce(second).error().code, ErrorCode::kFailedPrecondition);
  EXPECT_EQ(**db_->ServingVersion(), first);

  ASSERT_TRUE(Write(second, "a", 3, 3, "dog"));
  const auto complete = db_->Complete(second, {"a"});
  ASSERT_TRUE(complete) << complete.error().message;
  EXPECT_EQ(complete->labelled, 3);
  EXPECT_EQ(complete->pending, 1);
  EXPECT_TRUE(IsComplete(second));
  EXPECT_EQ(db_->GetVersion(second)->state, VersionState::kDistributed);
  EXPECT_THAT(Seen(2), Pair("cat", first));
  EXPECT_TRUE(db_->Search("dog", LabelSource::kModel, 10)->empty());
  ASSERT_TRUE(db_->DropOldOutcomes({}));
  EXPECT_EQ(*db_->CountOutcomes(second), 3) << "kept although nobody was switched to it";

  Reopen();
  ASSERT_TRUE(db_->SwitchAtOnce(second));
  EXPECT_THAT(Seen(2), Pair("dog", second));
  EXPECT_EQ(db_->Search("dog", LabelSource::kModel, 10)->size(), 3U);
}

TEST_F(SwitchTest, DroppedOutcomesAreNotSwitchedTo) {
  AddPhotos("a", 1, 2);
  std::vector<int64_t> versions;
  for (const char* label : {"cat", "dog", "cow"}) {
    versions.push_back(Labelled(label, 1, 2));
    ASSERT_TRUE(db_->Switch(versions.back(), {"a"}));
  }
  EXPECT_TRUE(IsComplete(versions[0])) << "until they are dropped";
  ASSERT_TRUE(db_->DropOldOutcomes({}));
  EXPECT_FALSE(IsComplete(versions[0]));
  EXPECT_TRUE(IsComplete(versions[1]));
  const auto gone = db_->SwitchAtOnce(versions[0]);
  ASSERT_FALSE(gone);
  EXPECT_THAT(gone.error().message, HasSubstr("relabel with it first"));
  EXPECT_THAT(Seen(1), Pair("cow", versions[2]));
  EXPECT_EQ(db_->SwitchAtOnce(99).error().code, ErrorCode::kNotFound);
  // A relabel completes it again.
  ASSERT_TRUE(Write(versions[0], "a", 1, 2, "cat"));
  ASSERT_TRUE(db_->Switch(versions[0], {"a"}));
  EXPECT_TRUE(IsComplete(versions[0]));
  EXPECT_EQ(db_->GetVersion(versions[0])->state, VersionState::kServing);
}

TEST_F(SwitchTest, AVersionThatIsGivenUpLosesItsOutcomes) {
  AddPhotos("a", 1, 3);
  const int64_t first = Labelled("cat", 1, 3);
  ASSERT_TRUE(db_->Switch(first, {"a"}));
  EXPECT_EQ(db_->GiveUp(first).error().code, ErrorCode::kFailedPrecondition) << "serving";
  EXPECT_EQ(db_->GiveUp(MakeVersion({"cow"})).error().code, ErrorCode::kFailedPrecondition);
  EXPECT_EQ(db_->GiveUp(99).error().code, ErrorCode::kNotFound);
  // Labelled beside the serving one, and never switched to.
  const int64_t second = Labelled("dog", 1, 3);
  ASSERT_TRUE(db_->Complete(second, {"a"}));
  ASSERT_TRUE(db_->GiveUp(second));
  ASSERT_TRUE(db_->GiveUp(second));
  EXPECT_EQ(db_->GetVersion(second)->state, VersionState::kRetired);
  EXPECT_FALSE(IsComplete(second));
  EXPECT_EQ(db_->SwitchAtOnce(second).error().code, ErrorCode::kFailedPrecondition);
  Reopen();  // a crash before they are dropped
  ASSERT_TRUE(db_->DropOldOutcomes({}));
  EXPECT_EQ(*db_->CountOutcomes(second), 0);
  EXPECT_EQ(*db_->CountOutcomes(first), 3);
  EXPECT_THAT(Seen(1), Pair("cat", first));

  // The one before is kept for the way back, until it is given up, too.
  const int64_t third = Labelled("cow", 1, 3);
  ASSERT_TRUE(db_->Switch(third, {"a"}));
  ASSERT_TRUE(db_->DropOldOutcomes({}));
  EXPECT_EQ(*db_->CountOutcomes(first), 3);
  AddPhotos("a", 4, 4);
  ASSERT_TRUE(db_->GiveUp(first));
  EXPECT_FALSE(*db_->PreviousVersion());
  ASSERT_TRUE(db_->DropOldOutcomes({}));
  EXPECT_EQ(*db_->CountOutcomes(first), 0);
  // A relabel brings each of them back.
  for (const auto& [version, label] : {std::pair(first, "cat"), std::pair(second, "dog")}) {
    ASSERT_TRUE(Write(version, "a", 1, 4, label));
    ASSERT_TRUE(db_->MarkDistributed(version));
    ASSERT_TRUE(db_->Switch(version, {"a"}));
    EXPECT_THAT(Seen(4), Pair(label, version));
  }
}

TEST_F(SwitchTest, TheServingVersionOfAnotherBackboneStaysComplete) {
  AddPhotos("a", 1, 2);
  const int64_t one = Labelled("cat", 1, 2);
  ASSERT_TRUE(db_->Switch(one, {"a"}));
  for (const char* label : {"dog", "cow"}) {
    const int64_t other = MakeVersion({label}, 2);
    ASSERT_TRUE(Write(other, "a", 1, 2, label));
    ASSERT_TRUE(db_->MarkDistributed(other));
    ASSERT_TRUE(db_->Switch(other, {"a"}));
    ASSERT_TRUE(db_->DropOldOutcomes({}));
  }
  EXPECT_EQ(db_->GetVersion(one)->state, VersionState::kServing);
  ASSERT_TRUE(db_->SwitchAtOnce(one));
  EXPECT_THAT(Seen(2), Pair("cat", one));
}

TEST_F(SwitchTest, SendsAreCountedOnTheNewestVersionOfATail) {
  const int64_t older = MakeVersion({"cat"});
  const int64_t newer = MakeVersion({"cat"});
  const auto tail = db_->GetVersion(newer)->tail;
  ASSERT_TRUE(db_->CountSent(tail, 1000, false));
  ASSERT_TRUE(db_->CountSent(tail, 10, true));
  ASSERT_TRUE(db_->CountSent(tail, 20, true));
  ASSERT_TRUE(db_->CountSent(Sha256::Of(std::string_view("unknown")), 7, true));
  Reopen();
  const auto counted = *db_->GetVersion(newer);
  EXPECT_EQ(counted.sent_bytes, 1030);
  EXPECT_EQ(counted.full_sends, 1);
  EXPECT_EQ(counted.delta_sends, 2);
  EXPECT_EQ(db_->GetVersion(older)->sent_bytes, 0);
}

TEST_F(SwitchTest, AVersionSaysWhatItsTailWasMadeFrom) {
  ModelVersion version;
  version.classes = *db_->LabelIds(std::vector<std::string>{"cat"});
  version.base = 3;
  version.delta_bits = 8;
  const auto made = *db_->GetVersion(*db_->CreateVersion(version));
  EXPECT_EQ(made.base, 3);
  EXPECT_EQ(made.delta_bits, 8);
  EXPECT_FALSE(made.is_complete);
}

}  // namespace
}  // namespace ndpipe::label
