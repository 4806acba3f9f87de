// What goes wrong: nobody there, a Tuner that dies in the middle of a call, a peer that falls
// silent or sends what it must not.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/server_builder.h>

#include "ndpipe/rpc/convert_store_link.h"
#include "ndpipe/rpc/foreign.h"
#include "ndpipe/rpc/rpc_fakes.h"
#include "ndpipe/v1/operator.grpc.pb.h"
#include "ndpipe/v1/store_link.grpc.pb.h"

namespace ndpipe::rpc {
namespace {

using testing::HasSubstr;

// A peer that speaks protobuf itself.
std::unique_ptr<wire::StoreLink::Stub> RawStub(const Address& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return wire::StoreLink::NewStub(
      grpc::CreateCustomChannel(address.Text(), grpc::InsecureChannelCredentials(), arguments));
}

// ---- nobody there ----

class NoTuner : public RpcTest {
 protected:
  NoTuner() { server_.reset(); }  // the port is known, and nobody listens
};

void ExpectUnreachable(const Error& error) {
  EXPECT_EQ(error.code, ErrorCode::kUnavailable) << error.message;
  EXPECT_THAT(error.message, HasSubstr("Tuner at 127.0.0.1:"));
}

TEST_F(NoTuner, EveryCallSaysSoAtOnce) {
  const auto status = operator_->GetStatus();
  ASSERT_FALSE(status);
  ExpectUnreachable(status.error());
  EXPECT_THAT(status.error().message, HasSubstr("cannot reach the Tuner"));
  EXPECT_THAT(status.error().message, HasSubstr("is it running?"));
  ExpectUnreachable(operator_->ListJobs().error());
  ExpectUnreachable(client_->RunControl(SomeHello("s"), {}, [] { return StoreHeartbeat{}; }, {}));
  ExpectUnreachable(
      client_->SendChanges("s", [] { return std::vector<photo::Change>(); }, {}).error());
  ExpectUnreachable(client_->OpenWork(kKey, {})->Next().error());
  ExpectUnreachable(client_->OpenFeatures(kKey, {})->Send(SomeFeatures(1, 1, 1)).error());
  ExpectUnreachable(client_->OpenLabels(kKey, {})->Finish().error());
  ExpectUnreachable(client_->FetchFile(FileKind::kTail, {}, folder_ / "got", {}).error());
  ExpectUnreachable(client_->FetchTail({}, {}, {}).error());
}

TEST_F(NoTuner, ATunerThatComesBackIsUsedAtOnce) {
  EXPECT_FALSE(client_->OpenWork(kKey, {})->Next());
  StartServer();
  handler_.file = folder_ / "empty";
  ASSERT_TRUE(WriteFileDurably(handler_.file, std::string_view("")));
  Status fetched;
  ControlCallbacks callbacks;
  std::stop_source stop;
  callbacks.on_welcome = [&](const Welcome&) {
    fetched = client_->FetchFile(FileKind::kManifest, {}, folder_ / "got", {});
    stop.request_stop();
  };
  const Error ended = client_->RunControl(
      SomeHello("s"), callbacks, [] { return StoreHeartbeat{}; }, stop.get_token());
  EXPECT_EQ(ended.code, ErrorCode::kCancelled) << ended.message;
  EXPECT_TRUE(fetched) << fetched.error().message;
}

// ---- the Tuner dies in the middle of a call ----

class LostTuner : public RpcTest {
 protected:
  // Runs `call` until it is inside the handler, then ends the server under it.
  template <typename Call>
  void ExpectLost(const Call& call) {
    handler_.blocked = true;
    std::optional<Error> error;
    std::jthread caller([&] { error = call(); });
    EXPECT_TRUE(Eventually([&] { return handler_.num_blocked > 0; }));
    std::jthread killer([&] { server_.reset(); });
    caller.join();
    handler_.Unblock();
    killer.join();
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code, ErrorCode::kUnavailable) << error->message;
  }
};

TEST_F(LostTuner, InSendChanges) {
  ExpectLost([&] {
    return client_->SendChanges("s", [] { return std::vector<photo::Change>(); }, {}).error();
  });
}

TEST_F(LostTuner, InSendFeatures) {
  ExpectLost([&] {
    const auto stream = client_->OpenFeatures(kKey, {});
    Status status;
    for (int64_t i = 0; i < 100 && status; ++i) status = stream->Send(SomeFeatures(i, 10, 10));
    return status.error();
  });
  EXPECT_LT(handler_.num_features, 100);
}

TEST_F(LostTuner, InFinishOfLabels) {
  ExpectLost([&] {
    const auto stream = client_->OpenLabels(kKey, {});
    EXPECT_TRUE(stream->Send(SomeLabels(1)));
    return stream->Finish().error();
  });
}

TEST_F(LostTuner, InFetchFile) {
  ExpectLost([&] { return client_->FetchFile(FileKind::kTail, {}, folder_ / "got", {}).error(); });
}

TEST_F(LostTuner, InFetchTail) {
  ExpectLost([&] { return client_->FetchTail({}, {}, {}).error(); });
}

TEST_F(LostTuner, InGetWork) {
  handler_.blocked = true;  // NextWork polls `cancelled`, so the server's end ends it
  std::optional<Error> error;
  std::jthread caller([&] { error = client_->OpenWork(kKey, {})->Next().error(); });
  std::this_thread::sleep_for(50ms);
  server_.reset();
  caller.join();
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kUnavailable) << error->message;
}

TEST_F(LostTuner, InControl) {
  std::atomic<bool> welcomed = false;
  ControlCallbacks callbacks;
  callbacks.on_welcome = [&](const Welcome&) { welcomed = true; };
  std::optional<Error> error;
  std::jthread caller([&] {
    error = client_->RunControl(SomeHello("s"), callbacks, [] { return StoreHeartbeat{}; }, {});
  });
  ASSERT_TRUE(Eventually([&] { return welcomed.load(); }));
  server_.reset();
  caller.join();
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kUnavailable) << error->message;
  EXPECT_EQ(handler_.disconnects.size(), 1u) << "the server's end is a disconnect too";
}

TEST_F(LostTuner, InAnOperatorsCall) {
  operators_.slow = true;
  std::optional<Error> error;
  std::jthread caller([&] { error = operator_->GetStatus().error(); });
  std::this_thread::sleep_for(100ms);
  server_.reset();
  caller.join();
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kUnavailable) << error->message;
}

// ---- stop tokens ----

TEST_F(RpcTest, AStopEndsEveryWaitingCall) {
  handler_.blocked = true;
  std::stop_source stop;
  std::vector<std::optional<Error>> errors(6);
  std::vector<std::jthread> callers;
  callers.emplace_back(
      [&] { errors[0] = client_->OpenWork(kKey, stop.get_token())->Next().error(); });
  callers.emplace_back([&] {
    const auto stream = client_->OpenFeatures(kKey, stop.get_token());
    Status status;
    for (int64_t i = 0; i < 100 && status; ++i) status = stream->Send(SomeFeatures(i, 1, 1));
    errors[1] = status.error();
  });
  callers.emplace_back([&] {
    const auto stream = client_->OpenLabels(kKey, stop.get_token());
    EXPECT_TRUE(stream->Send(SomeLabels(1)));
    errors[2] = stream->Finish().error();
  });
  callers.emplace_back([&] {
    errors[3] = client_->FetchFile(FileKind::kTail, {}, folder_ / "got", stop.get_token()).error();
  });
  callers.emplace_back([&] { errors[5] = client_->FetchTail({}, {}, stop.get_token()).error(); });
  callers.emplace_back([&] {
    errors[4] =
        client_->SendChanges(
                   "s", [] { return std::vector<photo::Change>(); }, stop.get_token())
            .error();
  });
  ASSERT_TRUE(Eventually([&] { return handler_.num_blocked == 5; }));
  stop.request_stop();
  callers.clear();
  for (const auto& error : errors) {
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code, ErrorCode::kCancelled) << error->message;
  }
  EXPECT_TRUE(Eventually([&] { return handler_.num_cancelled > 0; })) << "NextWork is told";
  // A token that was stopped before the call.
  EXPECT_EQ(client_->OpenWork(kKey, stop.get_token())->Next().error().code, ErrorCode::kCancelled);
}

// ---- silence ----

TEST_F(RpcTest, ASilentStoreIsDisconnectedOnce) {
  handler_.heartbeat_interval_ms = 20;
  const auto stub = RawStub(address_);
  grpc::ClientContext context;
  const auto stream = stub->Control(&context);
  wire::ControlRequest request;
  ToWire(SomeHello("silent"), *request.mutable_hello());
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(Eventually(
      [&] { return handler_.Locked([&] { return handler_.disconnects.size() == 1; }); }));
  wire::ControlResponse response;
  while (stream->Read(&response)) {
  }
  EXPECT_FALSE(stream->Finish().ok());
  server_.reset();
  EXPECT_EQ(handler_.disconnects.size(), 1u);
}

TEST_F(RpcTest, AStoreThatDoesNotReadIsDisconnected) {
  handler_.heartbeat_interval_ms = 3'600'000;
  const auto stub = RawStub(address_);
  grpc::ClientContext context;
  const auto stream = stub->Control(&context);
  wire::ControlRequest request;
  ToWire(SomeHello("deaf"), *request.mutable_hello());
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(Eventually(
      [&] { return handler_.Locked([&] { return handler_.channels.contains("deaf"); }); }));
  const auto channel = handler_.Locked([&] { return handler_.channels["deaf"]; });
  Assignment assignment;
  assignment.cut = std::string(4000, 'c');
  ASSERT_TRUE(Eventually([&] {
    for (int i = 0; i < 500; ++i) channel->Send(assignment);
    return handler_.Locked([&] { return handler_.disconnects.size() == 1; });
  }));
}

// A Tuner that welcomes a store and then says nothing.
class SilentTuner final : public wire::StoreLink::Service {
 public:
  grpc::Status Control(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<wire::ControlResponse, wire::ControlRequest>* stream) override {
    wire::ControlRequest request;
    stream->Read(&request);
    wire::ControlResponse response;
    ToWire(Welcome{.cluster_id = "c", .session = 1, .heartbeat_interval_ms = 20},
           *response.mutable_welcome());
    stream->Write(response);
    while (stream->Read(&request)) {
    }
    return grpc::Status::OK;
  }
};

TEST_F(RpcTest, ASilentTunerIsGivenUp) {
  SilentTuner service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  const auto client = *StoreLinkClient::Create({"127.0.0.1", port}, {});
  const Error ended = client->RunControl(SomeHello("s"), {}, [] { return StoreHeartbeat{}; }, {});
  EXPECT_EQ(ended.code, ErrorCode::kUnavailable);
  EXPECT_THAT(ended.message, HasSubstr("not been heard"));
  server->Shutdown();
}

// ---- messages that nobody of ours sends ----

class RawPeer : public RpcTest {
 protected:
  // What the server says to these control messages, after a good Hello or not.
  grpc::Status Control(const std::vector<wire::ControlRequest>& requests, Error* closed) {
    const auto stub = RawStub(address_);
    grpc::ClientContext context;
    const auto stream = stub->Control(&context);
    for (const auto& request : requests) stream->Write(request);
    wire::ControlResponse response;
    while (stream->Read(&response)) {
      if (response.has_closed()) *closed = FromWire(response.closed());
    }
    return stream->Finish();
  }
  grpc::Status SendFeatures(const std::vector<wire::SendFeaturesRequest>& requests) {
    const auto stub = RawStub(address_);
    grpc::ClientContext context;
    const auto stream = stub->SendFeatures(&context);
    for (const auto& request : requests) stream->Write(request);
    stream->WritesDone();
    wire::SendFeaturesResponse response;
    while (stream->Read(&response)) {
    }
    return stream->Finish();
  }
  static wire::SendFeaturesRequest Open() {
    wire::SendFeaturesRequest request;
    ToWire(kKey, *request.mutable_open());
    return request;
  }
  static wire::SendFeaturesRequest GoodBlock() {
    wire::SendFeaturesRequest request;
    ToWire(SomeFeatures(1, 4, 8), *request.mutable_block());
    return request;
  }
};

TEST_F(RawPeer, ControlWithoutHelloOrWithABadOne) {
  Error closed;
  wire::ControlRequest request;
  request.mutable_heartbeat();
  EXPECT_EQ(Control({request}, &closed).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  ToWire(SomeHello(""), *request.mutable_hello());
  const grpc::Status status = Control({request}, &closed);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("store_id"));
  ToWire(SomeHello(std::string(1'000'000, 'x')), *request.mutable_hello());
  EXPECT_EQ(Control({request}, &closed).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_TRUE(handler_.hellos.empty());
}

TEST_F(RawPeer, ABadReportClosesTheConnectionAndSaysWhy) {
  wire::ControlRequest hello, report;
  ToWire(SomeHello("s"), *hello.mutable_hello());
  report.mutable_assignment_report()->set_state(static_cast<wire::AssignmentState>(77));
  Error closed;
  EXPECT_FALSE(Control({hello, report}, &closed).ok());
  EXPECT_EQ(closed.code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(closed.message, HasSubstr("AssignmentReport.state is 77"));
  EXPECT_TRUE(Eventually(
      [&] { return handler_.Locked([&] { return handler_.disconnects.size() == 1; }); }));
}

TEST_F(RawPeer, FeatureStreamsOutOfOrderOrDamaged) {
  EXPECT_EQ(SendFeatures({GoodBlock()}).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(SendFeatures({Open(), Open()}).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(SendFeatures({}).error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(SendFeatures({Open(), GoodBlock()}).error_code(), grpc::StatusCode::DATA_LOSS)
      << "no end";

  auto damaged = GoodBlock();
  damaged.mutable_block()->mutable_features()->at(3) ^= 1;
  EXPECT_EQ(SendFeatures({Open(), damaged}).error_code(), grpc::StatusCode::DATA_LOSS);
  damaged = GoodBlock();
  damaged.mutable_block()->set_photos(0, 77);
  EXPECT_EQ(SendFeatures({Open(), damaged}).error_code(), grpc::StatusCode::DATA_LOSS);
  handler_.Locked([&] {
    ASSERT_EQ(handler_.bad_blocks.size(), 2u);
    EXPECT_THAT(handler_.bad_blocks[0].message, HasSubstr("CRC-32"));
    EXPECT_EQ(handler_.bad_blocks[1].code, ErrorCode::kDataLoss);
  });

  auto too_long = GoodBlock();
  too_long.mutable_block()->mutable_features()->assign(3'000'000, 'x');
  EXPECT_FALSE(SendFeatures({Open(), too_long}).ok());
  EXPECT_EQ(handler_.num_features, 1) << "only the good one";
}

TEST_F(RawPeer, WorkAndFilesForBadRequests) {
  const auto stub = RawStub(address_);
  {
    grpc::ClientContext context;
    const auto stream = stub->GetWork(&context);
    stream->Write({});
    wire::GetWorkResponse response;
    EXPECT_FALSE(stream->Read(&response));
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
  grpc::ClientContext context;
  wire::FetchFileRequest request;
  request.set_kind(wire::FILE_KIND_TAIL);
  request.set_hash("short");
  const auto reader = stub->FetchFile(&context, request);
  wire::FetchFileResponse response;
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(RawPeer, AddModelWithWrongSizesOrHashes) {
  const auto stub = wire::Operator::NewStub(
      grpc::CreateChannel(address_.Text(), grpc::InsecureChannelCredentials()));
  const auto add = [&](const std::vector<wire::AddModelRequest>& requests) {
    grpc::ClientContext context;
    wire::AddModelResponse response;
    const auto writer = stub->AddModel(&context, &response);
    for (const auto& request : requests) writer->Write(request);
    writer->WritesDone();
    return writer->Finish().error_code();
  };
  wire::AddModelRequest open, data, end;
  open.mutable_open()->set_onnx_bytes(3);
  data.set_onnx_data("abc");
  end.mutable_end()->set_onnx_sha256(RawBytes(Sha256::Of(std::string_view("abc"))));
  end.mutable_end()->set_manifest_sha256(RawBytes(Sha256::Of(std::string_view(""))));
  EXPECT_EQ(add({open, data, end}), grpc::StatusCode::OK);
  EXPECT_EQ(add({data}), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(add({open, data}), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(add({open, end}), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(add({open, data, data, end}), grpc::StatusCode::DATA_LOSS);
  data.set_onnx_data("abd");
  EXPECT_EQ(add({open, data, end}), grpc::StatusCode::DATA_LOSS);
  open.mutable_open()->set_onnx_bytes(int64_t{1} << 40);
  EXPECT_EQ(add({open}), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

// ---- starting ----

TEST_F(RpcTest, APortInUseIsSaidClearly) {
  const auto second = TunerServer::Start(address_, {}, handler_, operators_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kAlreadyExists);
  EXPECT_THAT(second.error().message,
              HasSubstr("port " + std::to_string(address_.port) + " is in use"));
}

TEST_F(RpcTest, NoPlainServerOrClientBeyondLoopback) {
  for (const char* host : {"0.0.0.0", "192.0.2.1", "example.org", "::"}) {
    const auto server = TunerServer::Start({host, 0}, {}, handler_, operators_);
    ASSERT_FALSE(server);
    EXPECT_EQ(server.error().code, ErrorCode::kFailedPrecondition);
    EXPECT_THAT(server.error().message, HasSubstr("--insecure"));
    EXPECT_EQ(StoreLinkClient::Create({host, 1}, {}).error().code, ErrorCode::kFailedPrecondition);
    EXPECT_EQ(ConnectOperator({host, 1}, {}).error().code, ErrorCode::kFailedPrecondition);
  }
  EXPECT_TRUE(TunerServer::Start({"0.0.0.0", 0}, {.insecure = true}, handler_, operators_));
  const auto absent =
      TunerServer::Start({"192.0.2.1", 0}, {.insecure = true}, handler_, operators_);
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, ErrorCode::kInvalidArgument);
}

TEST_F(RpcTest, LocalhostServesAsWell) {
  auto server = TunerServer::Start({"localhost", 0}, {}, handler_, operators_);
  ASSERT_TRUE(server) << server.error().message;
  const auto client = *ConnectOperator({"localhost", (*server)->port()}, {});
  EXPECT_TRUE(client->GetStatus());
}

}  // namespace
}  // namespace ndpipe::rpc
