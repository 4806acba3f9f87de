// Tails on the wire: FetchTail over real loopback TCP, and Tuners that answer it badly.
#include "ndpipe/rpc/tail_transfer.h"

#include <gmock/gmock.h>
#include <grpcpp/server_builder.h>

#include "ndpipe/base/bytes.h"
#include "ndpipe/rpc/foreign.h"
#include "ndpipe/rpc/rpc_fakes.h"

namespace ndpipe::rpc {
namespace {

namespace wire = ndpipe::v1;
using testing::ElementsAre;
using testing::HasSubstr;

const Hash256 kTail = Sha256::Of(std::string_view("the tail"));
const Hash256 kBase = Sha256::Of(std::string_view("the base"));

std::vector<uint8_t> SomeBytes(size_t size, uint32_t seed) {
  std::vector<uint8_t> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>((i + seed) * 2654435761U >> 13);
  return bytes;
}

TEST_F(RpcTest, ATailArrivesAsTheDeltasThatLeadToIt) {
  const auto first = SomeBytes(2'500'000, 1);
  const auto second = SomeBytes(10, 2);
  handler_.route = {.base = kBase, .deltas = {folder_ / "first", folder_ / "second"}};
  ASSERT_TRUE(WriteFileDurably(folder_ / "first", first));
  ASSERT_TRUE(WriteFileDurably(folder_ / "second", second));
  const std::vector<Hash256> held = {kTail, kBase};
  const auto parts = client_->FetchTail(kTail, held, {});
  ASSERT_TRUE(parts) << parts.error().message;
  EXPECT_EQ(parts->base, kBase);
  EXPECT_THAT(parts->deltas, ElementsAre(first, second));
  EXPECT_EQ(handler_.tail_asked, std::pair(kTail, held));
  ASSERT_TRUE(
      Eventually([&] { return handler_.Locked([&] { return !handler_.tails_sent.empty(); }); }));
  EXPECT_EQ(handler_.tails_sent[0], std::tuple(kTail, 2'500'010, true));
}

TEST_F(RpcTest, AFullTailAndAFileAreNoDeltas) {
  ASSERT_TRUE(WriteFileDurably(folder_ / "full", SomeBytes(100, 3)));
  handler_.route = {.base = {}, .deltas = {folder_ / "full"}};
  ASSERT_TRUE(client_->FetchTail(kTail, {}, {}));
  handler_.file = folder_ / "full";
  const auto hash = *Sha256::OfFile(folder_ / "full");
  ASSERT_TRUE(client_->FetchFile(FileKind::kTail, hash, folder_ / "got", {}));
  ASSERT_TRUE(
      Eventually([&] { return handler_.Locked([&] { return handler_.tails_sent.size() == 2; }); }));
  EXPECT_THAT(handler_.tails_sent,
              ElementsAre(std::tuple(kTail, 100, false), std::tuple(hash, 100, false)));
}

TEST_F(RpcTest, TailErrorsComeBack) {
  const auto missing = client_->FetchTail(kTail, {}, {});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(missing.error().message, "no such tail: " + kTail.Hex());
  handler_.route = {.base = {}, .deltas = {folder_ / "not there"}};
  EXPECT_EQ(client_->FetchTail(kTail, {}, {}).error().code, ErrorCode::kNotFound);
  // More tails than may be named: the newest count.
  ASSERT_TRUE(WriteFileDurably(folder_ / "full", SomeBytes(100, 3)));
  handler_.route = {.base = {}, .deltas = {folder_ / "full"}};
  EXPECT_TRUE(client_->FetchTail(kTail, std::vector<Hash256>(100, kBase), {}));
  EXPECT_EQ(handler_.tail_asked.second.size(), kMaxHeldTails);
  EXPECT_EQ(handler_.tails_sent.size(), 1U) << "what failed was not sent";
}

// Answers FetchTail with what a test wrote down.
class ScriptedTuner final : public wire::StoreLink::Service {
 public:
  ScriptedTuner() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    client_ = *StoreLinkClient::Create({"127.0.0.1", port_}, {});
  }
  ~ScriptedTuner() override { server_->Shutdown(); }

  grpc::Status FetchTail(grpc::ServerContext*, const wire::FetchTailRequest*,
                         grpc::ServerWriter<wire::FetchTailResponse>* writer) override {
    for (const auto& response : script_) {
      if (!writer->Write(response)) break;
    }
    return grpc::Status::OK;
  }

  Result<TailParts> Ask(const std::vector<wire::FetchTailResponse>& script) {
    script_ = script;
    return client_->FetchTail(kTail, std::vector{kBase}, {});
  }

 private:
  int port_ = 0;
  std::vector<wire::FetchTailResponse> script_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<StoreLinkClient> client_;
};

wire::FetchTailResponse Open(const Hash256& base, const std::vector<int64_t>& sizes) {
  wire::FetchTailResponse response;
  response.mutable_open()->set_base(RawBytes(base));
  for (const int64_t size : sizes) response.mutable_open()->add_delta_bytes(size);
  return response;
}

wire::FetchTailResponse Chunk(size_t size) {
  wire::FetchTailResponse response;
  const auto bytes = SomeBytes(size, 7);
  response.mutable_chunk()->set_data(bytes.data(), bytes.size());
  response.mutable_chunk()->set_crc32(Crc32(bytes));
  return response;
}

TEST(TailTransfer, BadAnswersAreErrorsOfTheCall) {
  ScriptedTuner tuner;
  ASSERT_TRUE(tuner.Ask({Open(kBase, {6, 4}), Chunk(5), Chunk(1), Chunk(4)}));
  using Script = std::vector<wire::FetchTailResponse>;
  auto damaged = Chunk(5);
  damaged.mutable_chunk()->set_crc32(1);
  auto no_hash = Open(kBase, {5});
  no_hash.mutable_open()->set_base("short");
  const std::vector<std::pair<const char*, Script>> cases = {
      {"nothing", {}},
      {"no sizes", {Chunk(5)}},
      {"a base that was not named", {Open(kTail, {5}), Chunk(5)}},
      {"a base that is no hash", {no_hash, Chunk(5)}},
      {"no delta", {Open(kBase, {})}},
      {"an empty delta", {Open(kBase, {0})}},
      {"a negative size", {Open(kBase, {-1})}},
      {"too many deltas", {Open(kBase, {1, 1, 1, 1, 1, 1, 1, 1, 1})}},
      {"absurd sizes", {Open(kBase, {int64_t{1} << 40, 1})}},
      {"sizes that overflow", {Open(kBase, {INT64_MAX, INT64_MAX})}},
      {"too little", {Open(kBase, {6}), Chunk(5)}},
      {"a chunk over two deltas", {Open(kBase, {4, 4}), Chunk(8)}},
      {"an empty chunk", {Open(kBase, {4}), Chunk(0), Chunk(4)}},
      {"sizes twice", {Open(kBase, {4}), Open(kBase, {4})}},
      {"too much", {Open(kBase, {4}), Chunk(4), Chunk(1)}},
      {"a damaged chunk", {Open(kBase, {5}), damaged}},
  };
  for (const auto& [what, script] : cases) {
    EXPECT_FALSE(tuner.Ask(script)) << what;
  }
  EXPECT_THAT(tuner.Ask({Open(kTail, {5}), Chunk(5)}).error().message, HasSubstr("did not name"));
}

TEST(TailTransfer, AnOlderTunerSaysThatItHasNoSuchCall) {
  // As the service was before it had the call: gRPC's own answer.
  wire::StoreLink::Service before;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&before);
  const auto server = builder.BuildAndStart();
  const auto client = *StoreLinkClient::Create({"127.0.0.1", port}, {});
  EXPECT_EQ(client->FetchTail(kTail, {}, {}).error().code, ErrorCode::kUnimplemented);
  server->Shutdown();
}

TEST(TailTransfer, QuestionsAreChecked) {
  wire::FetchTailRequest request;
  ToWire(kTail, std::vector{kBase}, request);
  const auto question = FromWire(request);
  ASSERT_TRUE(question);
  EXPECT_EQ(question->tail, kTail);
  EXPECT_THAT(question->held, ElementsAre(kBase));
  request.set_held(0, "short");
  EXPECT_EQ(FromWire(request).error().code, ErrorCode::kInvalidArgument);
  request.clear_held();
  for (size_t i = 0; i <= kMaxHeldTails; ++i) request.add_held(RawBytes(kBase));
  EXPECT_EQ(FromWire(request).error().code, ErrorCode::kInvalidArgument);
  request.clear_held();
  request.clear_tail();
  EXPECT_EQ(FromWire(request).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace ndpipe::rpc
