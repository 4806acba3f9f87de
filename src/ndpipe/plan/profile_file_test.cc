#include "ndpipe/plan/profile_file.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include "ndpipe/base/file.h"

namespace ndpipe::plan {
namespace {

using testing::HasSubstr;

Profiles SomeProfiles() {
  StoreProfile store{.store = "s1",
                     .name = "host:/photos",
                     .device = "cpu",
                     .program = "0.1.0",
                     .backbone = Sha256::Of("net"),
                     .precision = model::Precision::kBf16,
                     .measured_us = 7,
                     .num_photos = 256,
                     .decode_seconds_a_photo = 0.001,
                     .sidecar_share = 0.5,
                     .cuts = {{"pool", 2560, 0.0125, 0.25}, {"block", 40000, 0.005, 0}},
                     .bytes_per_second = 1.25e8,
                     .send_seconds_a_byte = 1e-9,
                     .network_measured_us = 8};
  TunerProfile tuner;
  tuner.backbone = store.backbone;
  tuner.program = "0.1.0";
  tuner.num_threads = 2;
  tuner.num_classes = 100;
  tuner.measured_us = 9;
  tuner.cuts = {{.cut = {.tensor = "pool",
                         .dims = {1280},
                         .feature_bytes = 2560,
                         .body_flops = 800,
                         .tail_flops = 2,
                         .tail_parameters = 1281000},
                 .seconds_a_photo = 1e-5,
                 .evaluate_a_photo = 3e-6}};
  tuner.num_listed = 50;
  tuner.num_alike = 30;
  tuner.num_thinned = 10;
  tuner.num_too_large = 2;
  tuner.bytes_per_second = 2e8;
  tuner.network_measured_us = 10;
  tuner.network_stores = 2;
  return {{store}, {tuner}};
}

TEST(ProfileFile, ComesBackAsItWas) {
  const auto profiles = SomeProfiles();
  const auto text = FormatProfiles(profiles);
  const auto read = ParseProfiles(text);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(FormatProfiles(*read), text);
  const auto* store = FindStore(*read, "s1", Sha256::Of("net"), model::Precision::kBf16);
  ASSERT_NE(store, nullptr);
  EXPECT_EQ(store->cuts.at(1).cut, "block");
  EXPECT_EQ(store->cuts.at(1).seconds_a_photo, 0.005);
  EXPECT_EQ(store->sidecar_share, 0.5);
  EXPECT_EQ(FindStore(*read, "s1", Sha256::Of("net"), model::Precision::kFp32), nullptr);
  EXPECT_EQ(FindStore(*read, "s2", Sha256::Of("net"), model::Precision::kBf16), nullptr);
  const auto* tuner = FindTuner(*read, Sha256::Of("net"));
  ASSERT_NE(tuner, nullptr);
  EXPECT_EQ(tuner->cuts.at(0).cut.dims, std::vector<int64_t>{1280});
  EXPECT_EQ(tuner->network_stores, 2);
  EXPECT_EQ(FindTuner(*read, Sha256::Of("other")), nullptr);
}

TEST(ProfileFile, ANewerProfileReplacesTheOlderOne) {
  auto profiles = SomeProfiles();
  auto newer = profiles.stores[0];
  newer.num_photos = 99;
  Keep(profiles, newer);
  ASSERT_EQ(profiles.stores.size(), 1U);
  EXPECT_EQ(profiles.stores[0].num_photos, 99);
  newer.precision = model::Precision::kFp32;
  Keep(profiles, newer);
  EXPECT_EQ(profiles.stores.size(), 2U);
  auto tuner = profiles.tuners[0];
  tuner.num_classes = 3;
  Keep(profiles, tuner);
  ASSERT_EQ(profiles.tuners.size(), 1U);
  EXPECT_EQ(profiles.tuners[0].num_classes, 3);
}

TEST(ProfileFile, DamageIsSaid) {
  auto text = FormatProfiles(SomeProfiles());
  const auto refuse = [](std::string damaged) {
    const auto read = ParseProfiles(damaged);
    ASSERT_FALSE(read) << damaged;
    EXPECT_EQ(read.error().code, ErrorCode::kDataLoss);
    EXPECT_THAT(read.error().message, HasSubstr("--profile"));
  };
  refuse("");
  refuse("{}");
  refuse(text.substr(0, text.size() / 2));
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string changed = text;
    const auto at = changed.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return changed.replace(at, from.size(), to);
  };
  refuse(replaced("\"format\": 1", "\"format\": 2"));
  refuse(replaced("0.0125", "-1"));
  refuse(replaced("0.0125", "\"fast\""));
  refuse(replaced("\"sidecar_share\": 0.5", "\"sidecar_share\": 1.5"));
  refuse(replaced("bf16", "fp8"));
  refuse(replaced(Sha256::Of("net").Hex(), "abc"));
}

TEST(ProfileFile, AnAbsentFileIsEmpty) {
  const auto file = std::filesystem::path(testing::TempDir()) /
                    ("ndpipe-profiles-" + std::to_string(::getpid()) + ".json");
  std::filesystem::remove(file);
  const auto none = ReadProfiles(file);
  ASSERT_TRUE(none);
  EXPECT_TRUE(none->stores.empty());
  ASSERT_TRUE(WriteProfiles(file, SomeProfiles()));
  const auto read = ReadProfiles(file);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->stores.size(), 1U);
  ASSERT_TRUE(WriteFileDurably(file, std::string_view("damaged")));
  const auto damaged = ReadProfiles(file);
  ASSERT_FALSE(damaged);
  EXPECT_THAT(damaged.error().message, HasSubstr(file.string()));
  std::filesystem::remove(file);
}

}  // namespace
}  // namespace ndpipe::plan
