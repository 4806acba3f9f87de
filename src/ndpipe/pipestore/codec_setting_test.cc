#include "ndpipe/pipestore/codec_setting.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "ndpipe/photo/importing/generator.h"

namespace ndpipe::pipestore {
namespace {

using photo::SidecarCodec;

class IdleBody : public engine::BodyEngine {
 public:
  int batch_size() const override { return 1; }
  int num_requests() const override { return 1; }
  int64_t feature_size() const override { return 1; }
  std::string description() const override { return "idle"; }
  double images_per_second() const override { return 500; }
  Request* Acquire() override { return nullptr; }
  void Submit(Request*, int, Callback) override {}
  void Release(Request*) override {}
  void Drain() override {}
};

class CodecSettingTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::path(testing::TempDir()) / ("ndpipe-codec-" + std::to_string(::getpid()));
    std::filesystem::remove_all(folder_);
    store_ = photo::PhotoStore::Open(folder_).value();
    derived_ = photo::DerivedStore::Open(store_->derived_folder()).value();
  }
  void TearDown() override {
    derived_.reset();
    store_.reset();
    std::filesystem::remove_all(folder_);
  }

  void AddPhoto(std::vector<uint8_t> bytes) {
    const auto id = Sha256::Of(bytes);
    const photo::NewPhoto photo{.id = id, .path = store_->CopyIn(bytes, id, ".jpg").value()};
    ASSERT_TRUE(store_->WithCatalog(
        [&](photo::Catalog& catalog) { return catalog.Add(std::span(&photo, 1)); }));
  }
  SidecarCodec Get(std::optional<SidecarCodec> set) {
    return CodecSetting(set, 2, *store_, *derived_).Get(photo::PreprocessSpec(), body_);
  }
  std::string Kept() {
    std::ifstream file(folder_ / "derived/sidecar-codec");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void PutSidecar(SidecarCodec codec) {
    const std::vector<uint8_t> bytes(10, 1);
    const photo::DerivedStore::Item item{.number = 1, .bytes = bytes};
    ASSERT_TRUE(derived_->Put(photo::SidecarSpace({}, codec), std::span(&item, 1)));
  }

  std::filesystem::path folder_;
  std::unique_ptr<photo::PhotoStore> store_;
  std::unique_ptr<photo::DerivedStore> derived_;
  IdleBody body_;
};

TEST_F(CodecSettingTest, IsMeasuredOnceAndKept) {
  AddPhoto(std::vector<uint8_t>(100, 'x'));  // broken: passed over
  AddPhoto(photo::Generator::Create(3, 1)->Make(0)->jpeg);
  const SidecarCodec chosen = Get(std::nullopt);
  EXPECT_EQ(Kept(), photo::NameOf(chosen));
  std::ofstream(folder_ / "derived/sidecar-codec") << "deflate";
  EXPECT_EQ(Get(std::nullopt), SidecarCodec::kDeflate);
  std::ofstream(folder_ / "derived/sidecar-codec") << "jpeg90";
  const SidecarCodec measured_again = Get(std::nullopt);
  EXPECT_EQ(Kept(), photo::NameOf(measured_again));
}

TEST_F(CodecSettingTest, WithoutAPhotoToMeasureItIsZstdAndNothingIsKept) {
  EXPECT_EQ(Get(std::nullopt), SidecarCodec::kZstd);
  EXPECT_EQ(Kept(), "");
}

TEST_F(CodecSettingTest, SidecarsOfAFormerCodecAreDropped) {
  PutSidecar(SidecarCodec::kZstd);
  PutSidecar(SidecarCodec::kRaw);
  PutSidecar(SidecarCodec::kJpeg90);  // of a backbone with a lossy rule
  EXPECT_EQ(Get(SidecarCodec::kRaw), SidecarCodec::kRaw);
  EXPECT_EQ(Kept(), "");
  std::vector<std::string> left;
  const auto usage = derived_->ListUsage().value();
  for (const auto& space : usage) left.push_back(space.space);
  std::ranges::sort(left);
  EXPECT_EQ(left, (std::vector{photo::SidecarSpace({}, SidecarCodec::kJpeg90),
                               photo::SidecarSpace({}, SidecarCodec::kRaw)}));
}

TEST(CodecSettingNames, LossyOnesBelongToTheBackbone) {
  EXPECT_EQ(CodecSetting::Parse("auto").value(), std::nullopt);
  EXPECT_EQ(CodecSetting::Parse("raw").value(), SidecarCodec::kRaw);
  EXPECT_NE(CodecSetting::Parse("jpeg95").error().message.find("manifest"), std::string::npos);
  EXPECT_EQ(CodecSetting::Parse("gif").error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace ndpipe::pipestore
