// Fine-tunes at cuts before the classifier's input, and those that continue from a version.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "ndpipe/tuner/tuner_fixture.h"

namespace ndpipe::tuner {
namespace {

using testing::HasSubstr;

constexpr int kPhotos = 600;

class DeepFinetuneTest : public TunerTest {
 protected:
  static rpc::FinetuneRequest AtMaps(int num_runs) {
    auto request = Request(num_runs, 1);
    request.cut = kFakeMapsCut;
    request.epochs = 40;
    return request;
  }
  // The head's row and bias of each class.
  std::map<std::string, std::vector<float>> RowsOf(int64_t number) {
    auto labels = *label::LabelDatabase::Open(state_ / "labels.db");
    const auto version = *labels->GetVersion(number);
    const auto names = *labels->LabelNames(version.classes);
    const auto file = state_ / "tails" / (version.tail.Hex() + ".safetensors");
    const auto tail = *model::ParseTail(*ReadFile(file, kMaxTailBytes));
    EXPECT_EQ(tail.num_classes, std::ssize(names));
    std::map<std::string, std::vector<float>> rows;
    for (size_t c = 0; c < names.size(); ++c) {
      const auto first = tail.weight.begin() + static_cast<int64_t>(c) * tail.feature_size;
      rows[names[c]].assign(first, first + tail.feature_size);
      rows[names[c]].push_back(tail.bias[c]);
    }
    return rows;
  }
};

TEST_F(DeepFinetuneTest, TrainsAndLabelsAtAnEarlierCut) {
  auto& service = Open();
  AddStore("a", Range(0, kPhotos));
  ConnectAll();
  const auto linear = WaitForReport(*service.StartFinetune(Request(1, 1)));
  EXPECT_EQ(linear["tail"], "linear");
  const auto deep = WaitForReport(*service.StartFinetune(AtMaps(2)));
  EXPECT_EQ(deep["cut"], kFakeMapsCut);
  EXPECT_EQ(deep["tail"], "deep");
  EXPECT_EQ(deep["cut_shape"], nlohmann::json({8, 8, 8}));
  EXPECT_EQ(deep["feature_size"], kFakeFeatureSize * kFakeMapPixels);
  EXPECT_EQ(deep["feature_bytes"],
            deep["extracted_photos"].get<int>() * kFakeFeatureSize * kFakeMapPixels * 2);
  EXPECT_EQ(deep["labelled"], kPhotos);
  EXPECT_GE(deep["top1_after"], 0.9);
  // The linear version is compared with, from the features of this cut.
  EXPECT_EQ(deep["before_version"], linear["version"]);
  EXPECT_DOUBLE_EQ(deep["top1_before"], linear["top1_after"]);
  // It says when to stop by photos that nothing else looks at.
  EXPECT_GT(deep["held_out_photos"], 0);
  EXPECT_EQ(linear["held_out_photos"], 0);
  EXPECT_EQ(deep["evaluation_part"], "test");
  EXPECT_EQ(deep["evaluation_photos"], linear["evaluation_photos"]);
  const auto versions = *service.ListVersions();
  EXPECT_EQ(versions.back().cut, kFakeMapsCut);
  EXPECT_EQ(versions.back().state, "serving");

  // The other way round nothing can be said, and the report says why.
  const auto again = WaitForReport(*service.StartFinetune(Request(1, 1)));
  EXPECT_TRUE(again["top1_before"].is_null());
  EXPECT_THAT(again["why_no_before"], HasSubstr("lies before"));
}

TEST_F(DeepFinetuneTest, TheModelIsTheSameInFilesAndForAnyStores) {
  const auto tail_with = [&](const std::string& state, int64_t max_feature_bytes,
                             const std::vector<std::vector<int>>& shares) {
    auto options = Options(state);
    options.max_feature_bytes = max_feature_bytes;
    auto& service = Open(options);
    stores_.clear();
    for (const auto& share : shares) AddStore("s" + std::to_string(stores_.size()), share);
    ConnectAll();
    auto request = AtMaps(3);
    request.min_stores = static_cast<int>(shares.size());
    request.relabel = false;
    const auto status = WaitFor(*service.StartFinetune(request), "done");
    const auto folder = state_ / "jobs" / std::to_string(status.id);
    EXPECT_TRUE(Eventually([&] { return !std::filesystem::exists(folder); }));
    return TailOf(status.version);
  };
  const auto expected = tail_with("memory", int64_t{1} << 30, {Range(0, kPhotos)});
  EXPECT_EQ(tail_with("files", 1000, {Range(0, kPhotos)}), expected);
  EXPECT_EQ(tail_with("two", int64_t{1} << 30, {Range(0, 200), Range(200, kPhotos)}), expected);
}

TEST_F(DeepFinetuneTest, ALostTunerGoesOnToTheSameModel) {
  const auto run = [&](const std::string& state, int blocks_until_death) {
    Open(state);
    stores_.clear();
    auto& a = AddStore("a", Range(0, kPhotos));
    a.blocks_until_death = blocks_until_death;
    ConnectAll();
    auto request = AtMaps(2);
    request.relabel = false;
    const auto job = *service_->StartFinetune(request);
    if (blocks_until_death > 0) {
      EXPECT_TRUE(Eventually([&] { return !a.connected(); }));
      Open(state);
      ConnectAll();
    }
    return TailOf(WaitFor(job, "done").version);
  };
  const auto expected = run("calm", -1);
  EXPECT_EQ(run("lost", 2), expected);
}

TEST_F(DeepFinetuneTest, CutsThatDoNotFitAreRefusedBeforeAJobIsMade) {
  auto& service = Open();
  AddStore("a", Range(0, kPhotos));
  ConnectAll();
  auto request = AtMaps(1);
  request.cut = "mapz";
  const auto unknown = service.StartFinetune(request);
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(unknown.error().message, HasSubstr("maps"));
  request.cut = "logits";
  EXPECT_EQ(service.StartFinetune(request).error().code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(service.ListJobs()->empty());

  request.cut = kFakeMapsCut;
  request.relabel = false;
  const auto deep = WaitFor(*service.StartFinetune(request), "done");
  request.continue_from = deep.version;
  request.cut = "features";
  const auto behind = service.StartFinetune(request);
  ASSERT_FALSE(behind);
  EXPECT_EQ(behind.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(behind.error().message, HasSubstr(kFakeMapsCut));
  request.continue_from = 99;
  EXPECT_EQ(service.StartFinetune(request).error().code, ErrorCode::kNotFound);
}

TEST_F(DeepFinetuneTest, ClassesAreAddedToTheVersionThatItContinuesFrom) {
  auto& service = Open();
  std::vector<int> three, fourth;
  for (const int i : Range(0, kPhotos)) (i % kFakeClasses == 3 ? fourth : three).push_back(i);
  auto& a = AddStore("a", three);
  ConnectAll();
  const auto first = WaitForReport(*service.StartFinetune(AtMaps(1)));
  EXPECT_EQ(first["num_classes"], 3);
  for (const int i : fourth) {
    auto photo = MakeFakePhoto(i);
    if (i % 3 == 0) photo.part = photo::Part::kTest;  // of the others only class 0 has test photos
    a.Import(photo);
  }
  ASSERT_TRUE(Eventually([&] { return service.GetStatus()->photos == kPhotos; }));

  auto request = Request(2, 1);
  request.continue_from = first["version"];
  request.epochs = 12;  // a new class needs its steps, and there are few photos to take them on
  const auto second = WaitForReport(*service.StartFinetune(request));
  EXPECT_EQ(second["num_classes"], 4);
  EXPECT_EQ(second["cut"], kFakeMapsCut) << "that of the version";
  EXPECT_EQ(second["continue_from"], first["version"]);
  EXPECT_EQ(second["known_classes"], 1) << "of those with test photos";
  EXPECT_TRUE(second["top1_before"].is_null()) << "one class is new";
  EXPECT_DOUBLE_EQ(second["known_top1_before"], first["top1_after"]);
  EXPECT_GE(second["known_top1_after"], 0.9);
  EXPECT_GE(second["top1_after"], 0.9);
  ASSERT_EQ(second["classes"].size(), 4);
  EXPECT_EQ(second["classes"][3]["name"], "class 3");
  EXPECT_TRUE(second["classes"][3]["top1_before"].is_null());
  EXPECT_GE(second["classes"][3]["top1_after"], 0.8);
  EXPECT_EQ(second["labelled"], kPhotos);
}

// The store that has all photos of a class is away.
TEST_F(DeepFinetuneTest, ClassesWithoutPhotosAreKeptByTheVersionThatContinues) {
  auto& service = Open();
  std::vector<int> three;
  for (const int i : Range(0, kPhotos)) {
    if (i % kFakeClasses != 1) three.push_back(i);
  }
  auto& a = AddStore("a", three);
  auto& b = AddStore("b", {});
  for (const int i : Range(0, kPhotos)) {
    auto photo = MakeFakePhoto(i);
    if (i % kFakeClasses != 1) continue;
    if (i % 3 == 0) photo.part = photo::Part::kTest;
    b.Import(photo);
  }
  for (const bool deep : {false, true}) {
    ASSERT_TRUE(a.Connect(service));
    ASSERT_TRUE(b.Connect(service));
    auto request = deep ? AtMaps(1) : Request(1, 2);
    request.min_stores = 2;
    request.relabel = false;
    const auto first = WaitForReport(*service.StartFinetune(request));
    EXPECT_EQ(first["num_classes"], kFakeClasses);
    EXPECT_EQ(first["kept_classes"], 0);
    b.Disconnect();
    ASSERT_TRUE(Eventually([&] { return !service.GetStatus()->stores[1].connected; }));

    request.continue_from = first["version"];
    request.min_stores = 1;
    const auto second = WaitForReport(*service.StartFinetune(request));
    EXPECT_EQ(second["num_classes"], kFakeClasses);
    EXPECT_EQ(second["kept_classes"], 1);
    ASSERT_EQ(second["classes"].size(), kFakeClasses);
    EXPECT_EQ(second["classes"][0]["trained"], true);
    EXPECT_EQ(second["classes"][3]["name"], "class 1") << "after those that are trained";
    EXPECT_EQ(second["classes"][3]["trained"], false);
    EXPECT_TRUE(second["classes"][3]["top1_after"].is_null()) << "nothing of it is here to see";
    EXPECT_THAT(FormatReport(second.dump()), HasSubstr("without training photos: 1\n"));
    const auto before = RowsOf(first["version"]), after = RowsOf(second["version"]);
    EXPECT_EQ(after.at("class 1"), before.at("class 1"));
    EXPECT_NE(after.at("class 0"), before.at("class 0"));

    ASSERT_TRUE(b.Connect(service));
    request.continue_from = second["version"];
    request.min_stores = 2;
    const auto third = WaitForReport(*service.StartFinetune(request));
    EXPECT_EQ(third["kept_classes"], 0);
    EXPECT_EQ(third["classes"][1]["name"], "class 1");
    // Of a linear tail nothing is forgotten; the layers of a deep one have moved below the row.
    EXPECT_GE(third["classes"][1]["top1_before"], deep ? 0.5 : 0.9);
    EXPECT_GE(third["top1_after"], 0.9);
  }
}

TEST_F(DeepFinetuneTest, RefusedBlocksShowInTheJob) {
  auto& service = Open();
  auto& a = AddStore("a", Range(0, kPhotos));
  a.paused = true;
  ConnectAll();
  auto request = AtMaps(1);
  request.relabel = false;
  const auto job = *service.StartFinetune(request);
  ASSERT_TRUE(Eventually([&] { return a.last_epoch > 0; }));
  service.OnBadBlock({"a", job, a.last_epoch}, {ErrorCode::kDataLoss, "its CRC-32 is wrong"});
  service.OnBadBlock({"a", job + 1, a.last_epoch}, {ErrorCode::kDataLoss, "of no job"});
  EXPECT_EQ(service.GetJob(job)->refused_blocks, 1);
  a.paused = false;
  EXPECT_EQ(WaitForReport(job)["refused_blocks"], 1);
}

}  // namespace
}  // namespace ndpipe::tuner
