// The control stream: hello, heartbeats, messages in order, ends of every kind.
#include <gmock/gmock.h>

#include "ndpipe/rpc/rpc_fakes.h"

namespace ndpipe::rpc {
namespace {

// A store's control stream on a thread of its own.
class RunningControl {
 public:
  RunningControl(StoreLinkClient& client, const Hello& hello) {
    callbacks_.on_welcome = [this](const Welcome& welcome) {
      std::lock_guard lock(mutex_);
      welcome_ = welcome;
    };
    callbacks_.on_message = [this](const TunerMessage& message) {
      std::lock_guard lock(mutex_);
      messages_.push_back(message);
    };
    thread_ = std::jthread([this, &client, hello](std::stop_token stop) {
      const Error ended =
          client.RunControl(hello, callbacks_, [] { return StoreHeartbeat{18, 19, 20}; }, stop);
      std::lock_guard lock(mutex_);
      ended_ = ended;
    });
  }
  std::optional<Welcome> welcome() {
    std::lock_guard lock(mutex_);
    return welcome_;
  }
  std::vector<TunerMessage> messages() {
    std::lock_guard lock(mutex_);
    return messages_;
  }
  std::optional<Error> ended() {
    std::lock_guard lock(mutex_);
    return ended_;
  }
  template <typename Message>
  int Count() {
    int count = 0;
    for (const auto& message : messages()) count += std::holds_alternative<Message>(message);
    return count;
  }
  void Stop() { thread_.request_stop(); }

 private:
  std::mutex mutex_;
  std::optional<Welcome> welcome_;
  std::vector<TunerMessage> messages_;
  std::optional<Error> ended_;
  ControlCallbacks callbacks_;
  std::jthread thread_;
};

TEST_F(RpcTest, HelloWelcomeAndHeartbeatsBothWays) {
  RunningControl control(*client_, SomeHello("s"));
  ASSERT_TRUE(Eventually([&] { return control.Count<TunerHeartbeat>() >= 3; }));
  EXPECT_EQ(control.welcome()->cluster_id, "cluster-7");
  EXPECT_EQ(control.welcome()->session, 1);
  EXPECT_EQ(control.welcome()->heartbeat_interval_ms, 50);
  ASSERT_TRUE(Eventually(
      [&] { return handler_.Locked([&] { return handler_.messages["s"].size() >= 3; }); }));
  handler_.Locked([&] {
    const Hello& got = handler_.hellos.at(0);
    EXPECT_EQ(got.protocol_version, kProtocolVersion);
    EXPECT_EQ(got.program_version, "0.1.0");
    EXPECT_EQ(got.cluster_id, "cluster-7");
    EXPECT_EQ(got.store_id, "s");
    EXPECT_EQ(got.store_name, "host:/photos");
    EXPECT_EQ(got.device, "cpu");
    EXPECT_EQ(got.last_change, 17);
    const auto heartbeat = std::get<StoreHeartbeat>(handler_.messages["s"][0]);
    EXPECT_EQ(heartbeat.last_change, 18);
    EXPECT_EQ(heartbeat.feature_bytes, 19);
    EXPECT_EQ(heartbeat.sidecar_bytes, 20);
  });
  control.Stop();
  ASSERT_TRUE(Eventually([&] { return control.ended().has_value(); }));
  EXPECT_EQ(control.ended()->code, ErrorCode::kCancelled);
  ASSERT_TRUE(
      Eventually([&] { return handler_.Locked([&] { return !handler_.disconnects.empty(); }); }));
  EXPECT_EQ(handler_.disconnects.size(), 1u);
  EXPECT_EQ(handler_.disconnects[0], std::pair(std::string("s"), int64_t{1}));
}

TEST_F(RpcTest, TunerMessagesComeInOrderWithAllFields) {
  RunningControl control(*client_, SomeHello("s"));
  ASSERT_TRUE(Eventually([&] { return control.welcome().has_value(); }));
  const auto channel = handler_.Locked([&] { return handler_.channels["s"]; });
  const Assignment assignment{.job = 1,
                              .epoch = 2,
                              .kind = AssignmentKind::kRelabel,
                              .backbone = Sha256::Of(std::string_view("b")),
                              .cut = "/pool/Flatten_output_0",
                              .precision = model::Precision::kBf16,
                              .feature_space = Sha256::Of(std::string_view("f")),
                              .version = 3,
                              .tail = Sha256::Of(std::string_view("t"))};
  channel->Send(PullChanges{.after = 12});
  channel->Send(assignment);
  channel->Send(CancelAssignment{.job = 1, .epoch = 2});
  ASSERT_TRUE(Eventually([&] { return control.Count<CancelAssignment>() == 1; }));
  std::vector<TunerMessage> got;
  for (const auto& message : control.messages()) {
    if (!std::holds_alternative<TunerHeartbeat>(message)) got.push_back(message);
  }
  ASSERT_EQ(got.size(), 3u);
  EXPECT_EQ(std::get<PullChanges>(got[0]).after, 12);
  const auto& arrived = std::get<Assignment>(got[1]);
  EXPECT_EQ(arrived.job, 1);
  EXPECT_EQ(arrived.epoch, 2);
  EXPECT_EQ(arrived.kind, AssignmentKind::kRelabel);
  EXPECT_EQ(arrived.backbone, assignment.backbone);
  EXPECT_EQ(arrived.cut, assignment.cut);
  EXPECT_EQ(arrived.precision, model::Precision::kBf16);
  EXPECT_EQ(arrived.feature_space, assignment.feature_space);
  EXPECT_EQ(arrived.version, 3);
  EXPECT_EQ(arrived.tail, assignment.tail);
  EXPECT_EQ(std::get<CancelAssignment>(got[2]).epoch, 2);
}

TEST_F(RpcTest, ReportsArriveWithAllFields) {
  AssignmentReport report;
  report.job = 99;
  client_->Report(report);  // no stream: dropped
  RunningControl control(*client_, SomeHello("s"));
  ASSERT_TRUE(Eventually([&] { return control.welcome().has_value(); }));
  report.job = 1;
  client_->Report(report);
  client_->Report(
      {.job = 1, .epoch = 2, .state = AssignmentState::kDone, .error = {}, .busy_seconds = 1.5});
  client_->Report({.job = 1,
                   .epoch = 3,
                   .state = AssignmentState::kFailed,
                   .error = {ErrorCode::kResourceExhausted, "the disk is full"}});
  std::vector<AssignmentReport> got;
  ASSERT_TRUE(Eventually([&] {
    return handler_.Locked([&] {
      got.clear();
      for (const auto& message : handler_.messages["s"]) {
        if (const auto* report = std::get_if<AssignmentReport>(&message)) got.push_back(*report);
      }
      return got.size() == 3;
    });
  }));
  EXPECT_EQ(got[0].state, AssignmentState::kPrepared);
  EXPECT_EQ(got[1].state, AssignmentState::kDone);
  EXPECT_EQ(got[1].busy_seconds, 1.5);
  EXPECT_EQ(got[2].state, AssignmentState::kFailed);
  EXPECT_EQ(got[2].epoch, 3);
  EXPECT_EQ(got[2].error.code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(got[2].error.message, "the disk is full");
}

TEST_F(RpcTest, ARefusedHelloEndsWithTheTunersReason) {
  handler_.refusal = Error{ErrorCode::kAlreadyExists, "store s is connected already"};
  RunningControl control(*client_, SomeHello("s"));
  ASSERT_TRUE(Eventually([&] { return control.ended().has_value(); }));
  EXPECT_EQ(control.ended()->code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(control.ended()->message, "store s is connected already");
  EXPECT_FALSE(control.welcome());
  server_.reset();
  EXPECT_TRUE(handler_.disconnects.empty()) << "it never was connected";
}

TEST_F(RpcTest, AClosedChannelEndsWithTheTunersReason) {
  RunningControl control(*client_, SomeHello("s"));
  ASSERT_TRUE(Eventually([&] { return control.welcome().has_value(); }));
  const auto channel = handler_.Locked([&] { return handler_.channels["s"]; });
  channel->Close({ErrorCode::kFailedPrecondition, "the store was removed"});
  ASSERT_TRUE(Eventually([&] { return control.ended().has_value(); }));
  EXPECT_EQ(control.ended()->code, ErrorCode::kFailedPrecondition);
  EXPECT_EQ(control.ended()->message, "the store was removed");
  ASSERT_TRUE(Eventually(
      [&] { return handler_.Locked([&] { return handler_.disconnects.size() == 1; }); }));
  channel->Send(PullChanges{});  // after the end: nothing happens
  channel->Close({ErrorCode::kInternal, "again"});
}

TEST_F(RpcTest, TwoStoresHaveTheirOwnStreams) {
  RunningControl first(*client_, SomeHello("a"));
  const auto other = *StoreLinkClient::Create(address_, {});
  RunningControl second(*other, SomeHello("b"));
  ASSERT_TRUE(Eventually([&] { return first.welcome() && second.welcome(); }));
  EXPECT_NE(first.welcome()->session, second.welcome()->session);
  handler_.Locked([&] { return handler_.channels["b"]; })->Send(PullChanges{.after = 5});
  ASSERT_TRUE(Eventually([&] { return second.Count<PullChanges>() == 1; }));
  first.Stop();
  ASSERT_TRUE(Eventually([&] { return first.ended().has_value(); }));
  const int before = second.Count<TunerHeartbeat>();
  ASSERT_TRUE(Eventually([&] { return second.Count<TunerHeartbeat>() > before + 2; }));
  EXPECT_FALSE(second.ended());
  EXPECT_EQ(first.Count<PullChanges>(), 0);
}

// The issue: "A test holds heartbeats under 1 s while bulk streams fill the link."
TEST_F(RpcTest, HeartbeatsKeepComingWhileBulkFillsTheLink) {
  handler_.keep_features = false;
  RunningControl control(*client_, SomeHello("s"));
  ASSERT_TRUE(Eventually([&] { return control.welcome().has_value(); }));
  {
    std::vector<std::jthread> senders;
    for (int i = 0; i < 2; ++i) {
      senders.emplace_back([&](std::stop_token stop) {
        const auto stream = client_->OpenFeatures(kKey, {});
        const FeatureBlock block = SomeFeatures(1, 800, 1280);  // 2.05 MB
        while (!stop.stop_requested()) ASSERT_TRUE(stream->Send(block));
        EXPECT_TRUE(stream->Finish());
      });
    }
    EXPECT_TRUE(Eventually([&] {
      return handler_.num_features >= 20 &&
             handler_.Locked([&] { return handler_.message_times["s"].size() >= 40; });
    }));
  }
  const auto times = handler_.Locked([&] { return handler_.message_times["s"]; });
  for (size_t i = 1; i < times.size(); ++i) EXPECT_LT(times[i] - times[i - 1], 1s);
}

}  // namespace
}  // namespace ndpipe::rpc
