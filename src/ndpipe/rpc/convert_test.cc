// Converters and checks by themselves: addresses, texts, errors, and bytes that no peer of ours
// sends.
#include <gmock/gmock.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "ndpipe/rpc/channel.h"
#include "ndpipe/rpc/convert_operator.h"
#include "ndpipe/rpc/convert_store_link.h"
#include "ndpipe/rpc/foreign.h"
#include "ndpipe/rpc/status.h"

namespace ndpipe::rpc {
namespace {

TEST(Address, Parses) {
  const auto expect = [](const std::string& text, const std::string& host, int port) {
    const auto address = ParseAddress(text);
    ASSERT_TRUE(address) << text;
    EXPECT_EQ(address->host, host);
    EXPECT_EQ(address->port, port);
    EXPECT_EQ(ParseAddress(address->Text())->Text(), address->Text());
  };
  expect("127.0.0.1", "127.0.0.1", kDefaultPort);
  expect("tuner-1.example:80", "tuner-1.example", 80);
  expect("[::1]:9", "::1", 9);
  expect("[::1]", "::1", kDefaultPort);
  expect("host:0", "host", 0);
  EXPECT_EQ((Address{"::1", 9}).Text(), "[::1]:9");
  for (const char* bad : {"", ":80", "host:", "host:x", "host:65536", "host:-1", "host:80x", "::1",
                          "[::1", "[x]:1", "[::1]9", "a b", "host/x", "a,b", "unix:80:1"}) {
    const auto address = ParseAddress(bad);
    ASSERT_FALSE(address) << bad;
    EXPECT_EQ(address.error().code, ErrorCode::kInvalidArgument);
  }
}

TEST(Security, LoopbackIsPlainTheRestIsNot) {
  for (const char* host : {"localhost", "127.0.0.1", "127.9.9.9", "::1"}) {
    EXPECT_TRUE(CheckSecurity({host, 1}, {})) << host;
  }
  for (const char* host :
       {"128.0.0.1", "0.0.0.0", "::", "localhost.example", "127.0.0.1.example"}) {
    EXPECT_EQ(CheckSecurity({host, 1}, {}).error().code, ErrorCode::kFailedPrecondition) << host;
    EXPECT_TRUE(CheckSecurity({host, 1}, {.insecure = true})) << host;
  }
}

TEST(Text, Utf8) {
  for (const char* good : {"", "a", "é", "€", "😀", "\xEF\xBF\xBF", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_TRUE(IsValidUtf8(good)) << good;
    EXPECT_EQ(CleanText(good, 100), good);
  }
  for (const char* bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80", "\xE2\x82",
        "\xF0\x80\x80\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "a\xFFz"}) {
    EXPECT_FALSE(IsValidUtf8(bad));
    EXPECT_TRUE(IsValidUtf8(CleanText(bad, 100)));
  }
  EXPECT_EQ(CleanText("a\xFFz", 100), "a\xEF\xBF\xBDz");
  EXPECT_EQ(CleanText("ab€", 4), "ab") << "no half characters";
  EXPECT_EQ(CleanText("ab€", 5), "ab€");
}

TEST(Errors, ForeignCodes) {
  EXPECT_EQ(ErrorCodeFrom(8), ErrorCode::kResourceExhausted);
  EXPECT_EQ(ErrorCodeFrom(0), ErrorCode::kUnknown);
  EXPECT_EQ(ErrorCodeFrom(17), ErrorCode::kUnknown);
  EXPECT_EQ(ErrorCodeFrom(-1), ErrorCode::kUnknown);
}

TEST(Profiles, OrderAndFiguresComeBack) {
  Assignment order;
  order.job = 3;
  order.kind = AssignmentKind::kProfile;
  order.profile.cuts = {{"pool", Sha256::Of("a")}, {"block", Sha256::Of("b")}};
  order.profile.num_photos = 256;
  order.profile.send_ms = 1500;
  wire::ControlResponse response;
  ToWire(TunerMessage(order), response);
  const auto got = FromWire(response);
  ASSERT_TRUE(got) << got.error().message;
  const auto& assignment = std::get<Assignment>(*got);
  EXPECT_EQ(assignment.kind, AssignmentKind::kProfile);
  ASSERT_EQ(assignment.profile.cuts.size(), 2U);
  EXPECT_EQ(assignment.profile.cuts[1].cut, "block");
  EXPECT_EQ(assignment.profile.cuts[1].feature_space, Sha256::Of("b"));
  EXPECT_EQ(assignment.profile.num_photos, 256);
  EXPECT_EQ(assignment.profile.send_ms, 1500);

  AssignmentReport report;
  report.state = AssignmentState::kDone;
  report.profile = ProfileFigures{.cuts = {{"pool", 1280, 0.002, 0.5}},
                                  .num_photos = 250,
                                  .decode_seconds_a_photo = 0.001,
                                  .sidecar_share = 0.25,
                                  .sent_bytes = 1 << 20,
                                  .send_seconds = 1.5,
                                  .send_cpu_seconds = 0.5};
  wire::ControlRequest request;
  ToWire(StoreMessage(report), request);
  auto back = FromWire(request);
  ASSERT_TRUE(back) << back.error().message;
  const auto& figures = std::get<AssignmentReport>(*back).profile;
  ASSERT_TRUE(figures);
  ASSERT_EQ(figures->cuts.size(), 1U);
  EXPECT_EQ(figures->cuts[0].cut, "pool");
  EXPECT_EQ(figures->cuts[0].feature_size, 1280);
  EXPECT_EQ(figures->cuts[0].seconds_a_photo, 0.002);
  EXPECT_EQ(figures->cuts[0].cached_share, 0.5);
  EXPECT_EQ(figures->num_photos, 250);
  EXPECT_EQ(figures->decode_seconds_a_photo, 0.001);
  EXPECT_EQ(figures->sidecar_share, 0.25);
  EXPECT_EQ(figures->sent_bytes, 1 << 20);
  EXPECT_EQ(figures->send_seconds, 1.5);
  EXPECT_EQ(figures->send_cpu_seconds, 0.5);
}

TEST(Profiles, WhatNoMeasurementGivesIsRefused) {
  const auto refuse = [](const std::function<void(wire::ProfileFigures&)>& spoil) {
    wire::ControlRequest request;
    AssignmentReport report;
    report.state = AssignmentState::kDone;
    report.profile = ProfileFigures{.cuts = {{"pool", 1280, 0.002, 0.5}}};
    ToWire(StoreMessage(report), request);
    spoil(*request.mutable_assignment_report()->mutable_profile());
    const auto got = FromWire(request);
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error().code, ErrorCode::kInvalidArgument);
  };
  refuse([](auto& profile) { profile.mutable_cuts(0)->set_seconds_a_photo(-1); });
  refuse([](auto& profile) { profile.mutable_cuts(0)->set_cached_share(1.5); });
  refuse([](auto& profile) { profile.mutable_cuts(0)->set_feature_size(-1); });
  refuse([](auto& profile) { profile.set_send_seconds(std::nan("")); });
  refuse([](auto& profile) { profile.set_sidecar_share(2); });
  refuse([](auto& profile) { profile.set_sent_bytes(-5); });
  refuse([](auto& profile) {
    for (int64_t i = 0; i < kMaxProfileCuts; ++i) profile.add_cuts();
  });
  wire::ControlResponse response;
  Assignment order;
  order.kind = AssignmentKind::kProfile;
  ToWire(TunerMessage(order), response);
  response.mutable_assignment()->mutable_profile()->set_send_ms(kMaxProfileSendMs + 1);
  EXPECT_FALSE(FromWire(response));
  response.mutable_assignment()->mutable_profile()->set_send_ms(1);
  EXPECT_TRUE(FromWire(response));
  response.mutable_assignment()->mutable_profile()->add_cuts()->set_cut("x");  // without a space
  EXPECT_FALSE(FromWire(response));
}

wire::LabelBlock GoodLabels() {
  LabelBlock block;
  block.photos = {1, 2};
  block.classes = {3, 4};
  block.confidences = {0.5F, 1.0F};
  wire::LabelBlock message;
  ToWire(block, message);
  return message;
}

TEST(Labels, EveryFieldIsChecked) {
  EXPECT_TRUE(FromWire(GoodLabels()));
  const auto expect_refused = [](auto change) {
    wire::LabelBlock message = GoodLabels();
    change(message);
    const auto block = FromWire(message);
    ASSERT_FALSE(block);
    EXPECT_EQ(block.error().code, ErrorCode::kInvalidArgument);
  };
  expect_refused([](auto& m) { m.set_block(-1); });
  expect_refused([](auto& m) { m.set_version(-1); });
  expect_refused([](auto& m) { m.set_from_features(-1); });
  expect_refused([](auto& m) { m.set_from_features(3); });
  expect_refused([](auto& m) { m.set_photos(0, 0); });
  expect_refused([](auto& m) { m.add_photos(3); });
  expect_refused([](auto& m) { m.add_classes(3); });
  expect_refused([](auto& m) { m.add_confidences(1); });
  expect_refused([](auto& m) { m.set_classes(0, -1); });
  expect_refused([](auto& m) { m.set_confidences(0, std::nanf("")); });
  expect_refused([](auto& m) { m.set_confidences(0, 1.5F); });
  expect_refused([](auto& m) { m.set_confidences(0, -0.1F); });
  expect_refused([](auto& m) { m.set_confidences(0, std::numeric_limits<float>::infinity()); });
  expect_refused([](auto& m) { m.add_failures()->set_photo(0); });
  expect_refused([](auto& m) {
    m.add_failures()->set_photo(1);
    m.mutable_failures(0)->set_reason(std::string(241, 'x'));
  });
  expect_refused([](auto& m) {
    for (int i = 0; i < 4095; ++i) m.add_failures()->set_photo(1);
  });
}

TEST(Features, ViewsComeThroughAndAreOneWhereAPeerSaysNothing) {
  FeatureBlock block;
  block.feature_size = 3;
  block.photos = {1, 2};
  block.views = 2;
  block.view_rule = 1;
  block.features.resize(12);
  block.features[11] = static_cast<Half>(7.0F);
  wire::FeatureBlock message;
  ToWire(block, message);
  const auto got = FromWire(message);
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(got->views, 2);
  EXPECT_EQ(got->view_rule, 1);
  EXPECT_EQ(got->features, block.features);
  // A peer that does not know views reads a block of other sizes than it says.
  message.clear_views();
  EXPECT_EQ(FromWire(message).error().code, ErrorCode::kInvalidArgument);

  wire::WorkBlock work;
  work.add_photos(1);
  EXPECT_EQ(FromWire(work)->views, 1);
  ToWire(WorkBlock{.photos = {1}, .views = 5}, work);
  EXPECT_EQ(FromWire(work)->views, 5);
  work.set_views(kMaxViews + 1);
  EXPECT_EQ(FromWire(work).error().code, ErrorCode::kInvalidArgument);
  work.set_views(-1);
  EXPECT_EQ(FromWire(work).error().code, ErrorCode::kInvalidArgument);
}

TEST(Features, SizesAreChecked) {
  FeatureBlock block;
  block.feature_size = 3;
  block.photos = {1, 2};
  block.features.resize(6);
  wire::FeatureBlock good;
  ToWire(block, good);
  EXPECT_TRUE(FromWire(good));
  const auto expect_refused = [&](auto change) {
    wire::FeatureBlock message = good;
    change(message);
    const auto made = FromWire(message);
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code, ErrorCode::kInvalidArgument);
  };
  expect_refused([](auto& m) { m.set_feature_size(2); });
  expect_refused([](auto& m) { m.set_feature_size(0); });
  expect_refused([](auto& m) { m.set_feature_size(std::numeric_limits<int64_t>::max()); });
  expect_refused([](auto& m) { m.mutable_features()->push_back('x'); });
  expect_refused([](auto& m) { m.clear_features(); });
  expect_refused([](auto& m) { m.set_feature_space("short"); });
  expect_refused([](auto& m) { m.set_run(-1); });
  expect_refused([](auto& m) { m.set_photo_bytes(-1); });
  expect_refused([](auto& m) { m.set_from_features(-1); });
  expect_refused([](auto& m) { m.set_from_features(m.photos_size() + 1); });
  expect_refused([](auto& m) { m.set_views(3); });  // which would be 18 elements
  expect_refused([](auto& m) { m.set_views(kMaxViews + 1); });
  expect_refused([](auto& m) { m.set_views(-1); });
  expect_refused([](auto& m) { m.set_view_rule(-1); });
  expect_refused([](auto& m) {
    m.set_feature_size(0);
    m.clear_features();
  });
  expect_refused([](auto& m) {
    for (int i = 0; i < 5000; ++i) m.add_photos(1);
  });
}

TEST(Changes, AreCheckedAndInOrder) {
  photo::Change change{.sequence = 1, .number = 1, .path = "a"};
  wire::ChangeBatch good;
  ToWire(change, *good.add_changes());
  change.sequence = 2;
  ToWire(change, *good.add_changes());
  ASSERT_TRUE(FromWire(good));
  const auto expect_refused = [&](auto edit) {
    wire::ChangeBatch message = good;
    edit(*message.mutable_changes(1));
    EXPECT_FALSE(FromWire(message));
  };
  expect_refused([](auto& c) { c.set_sequence(1); });
  expect_refused([](auto& c) { c.set_sequence(0); });
  expect_refused([](auto& c) { c.set_kind(wire::CHANGE_KIND_UNSPECIFIED); });
  expect_refused([](auto& c) { c.set_kind(static_cast<wire::ChangeKind>(7)); });
  expect_refused([](auto& c) { c.set_part(static_cast<wire::Part>(3)); });
  expect_refused([](auto& c) { c.set_id("x"); });
  expect_refused([](auto& c) { c.set_path(std::string("a\0b", 3)); });
  expect_refused([](auto& c) { c.set_path(std::string(20'000, 'p')); });
  expect_refused([](auto& c) { c.set_label("\xFF"); });
  expect_refused([](auto& c) { c.set_size_bytes(-1); });
}

TEST(Welcome, TheIntervalIsBounded) {
  wire::Welcome message;
  ToWire(Welcome{.cluster_id = "c", .session = 1, .heartbeat_interval_ms = 1000}, message);
  EXPECT_TRUE(FromWire(message));
  message.set_heartbeat_interval_ms(0);
  EXPECT_FALSE(FromWire(message));
  message.set_heartbeat_interval_ms(std::numeric_limits<int64_t>::max());
  EXPECT_FALSE(FromWire(message));
}

// Parses `bytes` as every message that comes from outside. A value or an error; never a crash.
template <typename... Messages>
int ConvertAll(const std::string& bytes) {
  int parsed = 0;
  const auto one = [&]<typename Message>(Message message) {
    if (!message.ParseFromString(bytes)) return;
    ++parsed;
    if constexpr (!std::is_same_v<Message, wire::Closed>) {
      const auto converted = FromWire(message);
      EXPECT_TRUE(converted || !converted.error().message.empty());
    } else {
      EXPECT_TRUE(IsValidUtf8(FromWire(message).message));
    }
  };
  (one(Messages()), ...);
  return parsed;
}

int ConvertAllKinds(const std::string& bytes) {
  return ConvertAll<wire::Hello, wire::Welcome, wire::ControlRequest, wire::ControlResponse,
                    wire::Closed, wire::ChangeBatch, wire::AssignmentKey, wire::WorkBlock,
                    wire::FeatureBlock, wire::LabelBlock, wire::FetchFileRequest,
                    wire::GetStatusResponse, wire::JobStatus, wire::VersionStatus,
                    wire::StartFinetuneRequest, wire::StartRelabelRequest, wire::SearchRequest,
                    wire::SearchResponse, wire::ServeVersionResponse, wire::ComparisonCounts,
                    wire::ClassComparison, wire::ChangedPhoto>(bytes);
}

TEST(Fuzz, RandomAndMutatedBytes) {
  RedirectLibraryLogs();
  std::mt19937 random(20261123);
  const auto below = [&](size_t n) { return random() % n; };
  std::vector<std::string> seeds(1);
  seeds.push_back(GoodLabels().SerializeAsString());
  FeatureBlock block;
  block.feature_size = 2;
  block.photos = {1, 2, 3};
  block.features.resize(6);
  block.failures = {{4, "broken"}};
  wire::FeatureBlock features;
  ToWire(block, features);
  seeds.push_back(features.SerializeAsString());
  wire::ChangeBatch changes;
  ToWire(photo::Change{.sequence = 1, .number = 1, .path = "a", .label = "b"},
         *changes.add_changes());
  seeds.push_back(changes.SerializeAsString());
  wire::ControlResponse assignment;
  ToWire(TunerMessage(Assignment()), assignment);
  seeds.push_back(assignment.SerializeAsString());
  int parsed = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes = seeds[below(seeds.size())];
    if (bytes.empty()) {
      bytes.resize(below(64));
      for (char& c : bytes) c = static_cast<char>(random());
    }
    for (size_t i = 0, n = below(4); i < n && !bytes.empty(); ++i) {
      bytes[below(bytes.size())] = static_cast<char>(random());
    }
    if (below(4) == 0) bytes.resize(below(bytes.size() + 1));
    parsed += ConvertAllKinds(bytes);
  }
  EXPECT_GT(parsed, 20'000) << "the fuzz reaches the converters";
}

}  // namespace
}  // namespace ndpipe::rpc
