// The store link over real loopback TCP: every call with all of its fields, and bulk's window.
#include <gmock/gmock.h>

#include "ndpipe/rpc/rpc_fakes.h"

namespace ndpipe::rpc {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

photo::Change SomeChange(int64_t sequence) {
  return {.sequence = sequence,
          .kind = photo::ChangeKind::kMoved,
          .number = 4,
          .id = Sha256::Of(std::string_view("photo")),
          .part = photo::Part::kTest,
          .path = "new\xFF.jpg",  // not UTF-8, as Linux allows
          .old_path = "old.jpg",
          .origin = "holiday/beach.jpg",
          .label = "strand ✓",
          .size_bytes = 77,
          .modified_us = -5};
}

std::function<Result<std::vector<photo::Change>>()> Batches(
    std::vector<std::vector<photo::Change>> batches) {
  return [batches, at = size_t{0}]() mutable -> Result<std::vector<photo::Change>> {
    return at < batches.size() ? batches[at++] : std::vector<photo::Change>();
  };
}

TEST_F(RpcTest, ChangesArriveWhole) {
  const auto last =
      client_->SendChanges("s", Batches({{SomeChange(41), SomeChange(42)}, {SomeChange(43)}}), {});
  ASSERT_TRUE(last) << last.error().message;
  EXPECT_EQ(*last, 43);
  ASSERT_EQ(handler_.changes.size(), 3u);
  const photo::Change& got = handler_.changes[1];
  const photo::Change sent = SomeChange(42);
  EXPECT_EQ(got.sequence, 42);
  EXPECT_EQ(got.kind, sent.kind);
  EXPECT_EQ(got.number, sent.number);
  EXPECT_EQ(got.id, sent.id);
  EXPECT_EQ(got.part, sent.part);
  EXPECT_EQ(got.path, sent.path);
  EXPECT_EQ(got.old_path, sent.old_path);
  EXPECT_EQ(got.origin, sent.origin);
  EXPECT_EQ(got.label, sent.label);
  EXPECT_EQ(got.size_bytes, sent.size_bytes);
  EXPECT_EQ(got.modified_us, sent.modified_us);
}

TEST_F(RpcTest, NoChangesStillTellTheLastDurableNumber) {
  const auto last = client_->SendChanges("s", Batches({}), {});
  ASSERT_TRUE(last) << last.error().message;
  EXPECT_EQ(*last, 40);
}

TEST_F(RpcTest, ManyChangesAreSplitIntoMessages) {
  std::vector<photo::Change> batch;
  for (int64_t i = 1; i <= 3000; ++i) {
    batch.push_back(SomeChange(i));
    batch.back().origin = std::string(4000, 'o');
  }
  const auto last = client_->SendChanges("s", Batches({batch}), {});
  ASSERT_TRUE(last) << last.error().message;
  EXPECT_EQ(*last, 3000);
  EXPECT_EQ(handler_.changes.size(), 3000u);
  EXPECT_GT(handler_.num_batches, 5);
}

TEST_F(RpcTest, AFailingSourceOfChangesEndsTheCall) {
  const auto last =
      client_->SendChanges("s",
                           []() -> Result<std::vector<photo::Change>> {
                             return Fail(ErrorCode::kDataLoss, "the catalog is damaged");
                           },
                           {});
  ASSERT_FALSE(last);
  EXPECT_EQ(last.error().code, ErrorCode::kDataLoss);
  EXPECT_EQ(last.error().message, "the catalog is damaged");
}

TEST_F(RpcTest, WorkIsHandedOutBlockByBlock) {
  handler_.work = {{.run = 0, .block = 1, .photos = {5, 3, 4}},
                   {.run = 1, .block = 2, .photos = {9}}};
  const auto stream = client_->OpenWork(kKey, {});
  const auto first = stream->Next();
  ASSERT_TRUE(first) << first.error().message;
  ASSERT_TRUE(*first);
  EXPECT_THAT((*first)->photos, ElementsAre(5, 3, 4));
  EXPECT_EQ(handler_.Locked([&] { return handler_.work.size(); }), 1u) << "handed out ahead";
  EXPECT_EQ(handler_.work_key.store_id, "s");
  EXPECT_EQ(handler_.work_key.job, 5);
  EXPECT_EQ(handler_.work_key.epoch, 1);
  const auto second = stream->Next();
  ASSERT_TRUE(second && *second);
  EXPECT_EQ((*second)->run, 1);
  EXPECT_EQ((*second)->block, 2);
  for (int i = 0; i < 2; ++i) {
    const auto end = stream->Next();
    ASSERT_TRUE(end) << end.error().message;
    EXPECT_FALSE(*end);
  }
}

TEST_F(RpcTest, FeaturesArriveWholeAndDurable) {
  const auto stream = client_->OpenFeatures(kKey, {});
  for (int64_t i = 0; i < 10; ++i) {
    const Status sent = stream->Send(SomeFeatures(i, 100, 1280));
    ASSERT_TRUE(sent) << sent.error().message;
  }
  const Status finished = stream->Finish();
  ASSERT_TRUE(finished) << finished.error().message;
  ASSERT_EQ(handler_.features.size(), 10u);
  const FeatureBlock sent = SomeFeatures(7, 100, 1280);
  const FeatureBlock& got = handler_.features[7];
  EXPECT_EQ(got.run, sent.run);
  EXPECT_EQ(got.block, sent.block);
  EXPECT_EQ(got.feature_space, sent.feature_space);
  EXPECT_EQ(got.feature_size, sent.feature_size);
  EXPECT_EQ(got.photos, sent.photos);
  EXPECT_EQ(got.features, sent.features);
  ASSERT_EQ(got.failures.size(), 1u);
  EXPECT_EQ(got.failures[0].photo, 9000);
  EXPECT_EQ(got.failures[0].reason, "truncated");
  EXPECT_EQ(got.photo_bytes, 123);
  EXPECT_EQ(got.from_features, 50);
  EXPECT_EQ(handler_.feature_key.job, 5);
  EXPECT_FALSE(stream->Send(SomeFeatures(11, 1, 1))) << "after Finish";
}

TEST_F(RpcTest, ABlockOfFailuresOnlyIsABlock) {
  const auto stream = client_->OpenFeatures(kKey, {});
  FeatureBlock block;
  block.failures = {{1, "a"}, {2, std::string(5000, '\xFF')}};
  ASSERT_TRUE(stream->Send(block));
  const Status finished = stream->Finish();
  ASSERT_TRUE(finished) << finished.error().message;
  EXPECT_LE(handler_.features.at(0).failures.at(1).reason.size(), 240u);
}

TEST_F(RpcTest, ATooLargeBlockIsRefusedBeforeItIsSent) {
  const auto stream = client_->OpenFeatures(kKey, {});
  const Status sent = stream->Send(SomeFeatures(1, 1000, 2000));
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().code, ErrorCode::kInvalidArgument) << "trying again does not help";
  EXPECT_THAT(sent.error().message, HasSubstr("fewer photos"));
  ASSERT_TRUE(stream->Send(SomeFeatures(1, 100, 2000)));
  EXPECT_TRUE(stream->Finish());
}

TEST_F(RpcTest, LabelsArriveWhole) {
  const auto stream = client_->OpenLabels(kKey, {});
  for (int64_t i = 0; i < 6; ++i) ASSERT_TRUE(stream->Send(SomeLabels(i)));
  const Status finished = stream->Finish();
  ASSERT_TRUE(finished) << finished.error().message;
  ASSERT_EQ(handler_.labels.size(), 6u);
  const LabelBlock& got = handler_.labels[5];
  EXPECT_EQ(got.block, 5);
  EXPECT_EQ(got.version, 4);
  EXPECT_THAT(got.photos, ElementsAre(3, 1, 2));
  EXPECT_THAT(got.classes, ElementsAre(0, 99, 7));
  EXPECT_THAT(got.confidences, ElementsAre(0, 1, 0.25));
  ASSERT_EQ(got.failures.size(), 1u);
  EXPECT_EQ(got.failures[0].reason, "gone");
  EXPECT_EQ(got.from_features, 2);
}

TEST_F(RpcTest, SendWaitsForAcknowledgements) {
  handler_.blocked = true;
  std::atomic<int> num_sent = 0;
  std::jthread sender([&] {
    const auto stream = client_->OpenFeatures(kKey, {});
    for (int64_t i = 0; i < kMaxUnacknowledgedBlocks + 3; ++i) {
      if (!stream->Send(SomeFeatures(i, 10, 10))) return;
      ++num_sent;
    }
    EXPECT_TRUE(stream->Finish());
  });
  ASSERT_TRUE(Eventually([&] { return num_sent == kMaxUnacknowledgedBlocks; }));
  ASSERT_TRUE(Eventually([&] { return handler_.num_blocked == 1; }));
  std::this_thread::sleep_for(100ms);
  EXPECT_EQ(num_sent, kMaxUnacknowledgedBlocks);
  EXPECT_EQ(handler_.num_entered, 1) << "blocks of one stream come one after the other";
  handler_.Unblock();
  sender.join();
  EXPECT_EQ(handler_.num_features, kMaxUnacknowledgedBlocks + 3);
}

TEST_F(RpcTest, AnOldEpochIsRefusedInEveryBulkCall) {
  handler_.current_epoch = 2;
  const auto work = client_->OpenWork(kKey, {})->Next();
  ASSERT_FALSE(work);
  EXPECT_EQ(work.error().code, ErrorCode::kAborted);
  EXPECT_EQ(work.error().message, "epoch 2 is current");

  const auto features = client_->OpenFeatures(kKey, {});
  Status status;
  for (int64_t i = 0; i < 6 && status; ++i) status = features->Send(SomeFeatures(i, 1, 1));
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kAborted);
  EXPECT_EQ(features->Finish().error().code, ErrorCode::kAborted);

  const auto labels = client_->OpenLabels(kKey, {});
  ASSERT_TRUE(labels->Send(SomeLabels(1)));
  status = labels->Finish();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kAborted);
}

TEST_F(RpcTest, FilesArriveVerified) {
  std::string bytes(3'500'000, 'x');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 2654435761u >> 13);
  handler_.file = folder_ / "tail.safetensors";
  ASSERT_TRUE(WriteFileDurably(handler_.file, bytes));
  const Hash256 hash = Sha256::Of(std::string_view(bytes));
  const Status fetched = client_->FetchFile(FileKind::kTail, hash, folder_ / "got", {});
  ASSERT_TRUE(fetched) << fetched.error().message;
  EXPECT_EQ(*Sha256::OfFile(folder_ / "got"), hash);
  EXPECT_EQ(handler_.file_asked.first, FileKind::kTail);
  EXPECT_EQ(handler_.file_asked.second, hash);
}

TEST_F(RpcTest, AFileWithAnotherHashIsNotKept) {
  handler_.file = folder_ / "model.onnx";
  ASSERT_TRUE(WriteFileDurably(handler_.file, std::string_view("other bytes")));
  const Hash256 hash = Sha256::Of(std::string_view("bytes"));
  const Status fetched = client_->FetchFile(FileKind::kBackbone, hash, folder_ / "got", {});
  ASSERT_FALSE(fetched);
  EXPECT_EQ(fetched.error().code, ErrorCode::kDataLoss);
  const auto files = std::distance(std::filesystem::directory_iterator(folder_),
                                   std::filesystem::directory_iterator());
  EXPECT_EQ(files, 1) << "nothing is left behind";
  // A manifest is named by its backbone's hash, so its own is not compared.
  EXPECT_TRUE(client_->FetchFile(FileKind::kManifest, hash, folder_ / "got", {}));
}

TEST_F(RpcTest, FileErrorsComeBack) {
  const Hash256 hash = Sha256::Of(std::string_view("bytes"));
  const Status missing = client_->FetchFile(FileKind::kTail, hash, folder_ / "got", {});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(missing.error().message, "no such file: " + hash.Hex());
  handler_.file = folder_ / "empty";
  ASSERT_TRUE(WriteFileDurably(handler_.file, std::string_view("")));
  EXPECT_TRUE(
      client_->FetchFile(FileKind::kTail, Sha256::Of(std::string_view("")), folder_ / "e", {}));
  EXPECT_TRUE(std::filesystem::exists(folder_ / "e"));
  EXPECT_EQ(client_->FetchFile(FileKind::kTail, hash, folder_ / "no" / "got", {}).error().code,
            ErrorCode::kNotFound);
}

}  // namespace
}  // namespace ndpipe::rpc
