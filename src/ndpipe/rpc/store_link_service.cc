#include "ndpipe/rpc/store_link_service.h"

#include <fmt/format.h>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/log.h"
#include "ndpipe/rpc/convert_store_link.h"
#include "ndpipe/rpc/file_transfer.h"
#include "ndpipe/rpc/foreign.h"
#include "ndpipe/rpc/status.h"
#include "ndpipe/rpc/tail_transfer.h"

namespace ndpipe::rpc {
namespace {

std::unexpected<Error> OutOfOrder(std::string_view call) {
  return Fail(ErrorCode::kInvalidArgument,
              fmt::format("the messages of {} came in a wrong order", call));
}

// A stream that stops before its end message: the PipeStore or the network is gone, or a message
// could not be read.
std::unexpected<Error> Lost(std::string_view call) {
  return Fail(ErrorCode::kDataLoss,
              fmt::format("{} stopped before its end: the connection was lost, or a message was "
                          "damaged or too long",
                          call));
}

// Takes blocks of one kind until the end of the stream; acknowledges each once `take` has returned.
template <typename Stream, typename Request, typename Response, typename Take, typename Mark>
Status ReceiveBlocks(std::string_view call, StoreLinkHandler& handler, Stream& stream,
                     const Take& take, const Mark& mark) {
  Request request;
  if (!stream.Read(&request)) return Lost(call);
  if (request.message_case() != Request::kOpen) return OutOfOrder(call);
  NDP_ASSIGN(const AssignmentKey key, FromWire(request.open()));
  while (stream.Read(&request)) {
    if (request.message_case() == Request::kEnd) return {};
    if (request.message_case() != Request::kBlock) return OutOfOrder(call);
    auto block = FromWire(request.block());
    if (!block) {
      handler.OnBadBlock(key, block.error());
      return std::unexpected(std::move(block).error());
    }
    Response response;
    mark(*block, response);
    NDP_RETURN_IF_ERROR(take(key, *std::move(block)));
    if (!stream.Write(response)) return Lost(call);
  }
  return Lost(call);
}

// The file's size.
Result<int64_t> SendFile(const std::filesystem::path& path,
                         grpc::ServerWriter<wire::FetchFileResponse>& writer) {
  NDP_ASSIGN(FileSender file, FileSender::Open(path, kMaxModelBytes));
  wire::FetchFileResponse response;
  response.set_size_bytes(file.size_bytes());
  while (writer.Write(response)) {
    NDP_ASSIGN(const auto piece, file.Next());
    if (piece.empty()) return file.size_bytes();
    response.mutable_chunk()->set_data(piece.data(), piece.size());
    response.mutable_chunk()->set_crc32(Crc32(piece));
  }
  return Lost("FetchFile");
}

}  // namespace

grpc::Status StoreLinkService::Control(grpc::ServerContext* context, ControlStream* stream) {
  auto session = std::make_shared<ControlSession>(*context);
  watchdog_.Add(session);
  const Result<Hello> hello = ReadHello(*stream);
  Result<Welcome> welcome =
      hello ? handler_.OnHello(*hello, session) : Result<Welcome>(std::unexpected(hello.error()));
  if (!welcome) {
    watchdog_.Remove(session);
    session->End();
    return ToGrpc(*context, welcome.error());
  }
  session->Heard();
  wire::ControlResponse response;
  ToWire(*welcome, *response.mutable_welcome());
  if (stream->Write(response)) {
    session->StartWriting(*stream, std::max<int64_t>(1, welcome->heartbeat_interval_ms));
    ReadMessages(hello->store_id, welcome->session, *session, *stream);
  }
  watchdog_.Remove(session);
  const std::optional<Error> closed = session->End();
  if (closed) spdlog::info("store {}: connection closed: {}", hello->store_id, closed->message);
  handler_.OnDisconnect(hello->store_id, welcome->session);
  return closed ? ToGrpc(*context, *closed) : grpc::Status::OK;
}

Result<Hello> StoreLinkService::ReadHello(ControlStream& stream) {
  wire::ControlRequest request;
  if (!stream.Read(&request)) return Lost("Control");
  if (request.message_case() != wire::ControlRequest::kHello) return OutOfOrder("Control");
  return FromWire(request.hello());
}

void StoreLinkService::ReadMessages(const std::string& store_id, int64_t session_number,
                                    ControlSession& session, ControlStream& stream) {
  wire::ControlRequest request;
  bool refused = false;
  while (stream.Read(&request)) {
    if (refused) continue;  // until the store has read why
    const Result<StoreMessage> message = FromWire(request);
    if (!message) {
      session.Close(message.error());
      refused = true;
      continue;
    }
    session.Heard();
    handler_.OnMessage(store_id, session_number, *message);
  }
}

grpc::Status StoreLinkService::SendChanges(grpc::ServerContext* context,
                                           grpc::ServerReader<wire::SendChangesRequest>* reader,
                                           wire::SendChangesResponse* response) {
  const auto receive = [&]() -> Status {
    wire::SendChangesRequest request;
    if (!reader->Read(&request)) return Lost("SendChanges");
    if (!request.has_open()) return OutOfOrder("SendChanges");
    const std::string store_id = request.open().store_id();
    NDP_RETURN_IF_ERROR(CheckId(store_id, "ChangesOpen.store_id"));
    std::optional<int64_t> last_durable;
    while (reader->Read(&request)) {
      if (request.has_batch()) {
        NDP_ASSIGN(const auto changes, FromWire(request.batch()));
        NDP_ASSIGN(last_durable, handler_.OnChanges(store_id, changes));
      } else if (request.has_end()) {
        if (!last_durable) {  // nothing was new: the number is asked for all the same
          NDP_ASSIGN(last_durable, handler_.OnChanges(store_id, {}));
        }
        response->set_last_durable(*last_durable);
        return {};
      } else {
        return OutOfOrder("SendChanges");
      }
    }
    return Lost("SendChanges");
  };
  return ToGrpc(*context, receive());
}

grpc::Status StoreLinkService::GetWork(
    grpc::ServerContext* context,
    grpc::ServerReaderWriter<wire::GetWorkResponse, wire::GetWorkRequest>* stream) {
  const auto hand_out = [&]() -> Status {
    wire::GetWorkRequest request;
    if (!stream->Read(&request)) return Lost("GetWork");
    NDP_ASSIGN(const AssignmentKey key, FromWire(request.key()));
    do {
      NDP_ASSIGN(const auto block,
                 handler_.NextWork(key, [context] { return context->IsCancelled(); }));
      wire::GetWorkResponse response;
      if (block) {
        ToWire(*block, *response.mutable_block());
      } else {
        response.mutable_end();
      }
      if (!stream->Write(response)) return Lost("GetWork");
      if (!block) return {};
    } while (stream->Read(&request));
    return {};  // the store wants no more
  };
  return ToGrpc(*context, hand_out());
}

grpc::Status StoreLinkService::SendFeatures(
    grpc::ServerContext* context,
    grpc::ServerReaderWriter<wire::SendFeaturesResponse, wire::SendFeaturesRequest>* stream) {
  const auto take = [this](const AssignmentKey& key, FeatureBlock block) {
    return handler_.OnFeatures(key, std::move(block));
  };
  const auto mark = [](const FeatureBlock& block, wire::SendFeaturesResponse& response) {
    response.set_run(block.run);
    response.set_block(block.block);
  };
  return ToGrpc(*context, ReceiveBlocks<std::remove_pointer_t<decltype(stream)>,
                                        wire::SendFeaturesRequest, wire::SendFeaturesResponse>(
                              "SendFeatures", handler_, *stream, take, mark));
}

grpc::Status StoreLinkService::SendLabels(
    grpc::ServerContext* context,
    grpc::ServerReaderWriter<wire::SendLabelsResponse, wire::SendLabelsRequest>* stream) {
  const auto take = [this](const AssignmentKey& key, LabelBlock block) {
    return handler_.OnLabels(key, std::move(block));
  };
  const auto mark = [](const LabelBlock& block, wire::SendLabelsResponse& response) {
    response.set_block(block.block);
  };
  return ToGrpc(*context, ReceiveBlocks<std::remove_pointer_t<decltype(stream)>,
                                        wire::SendLabelsRequest, wire::SendLabelsResponse>(
                              "SendLabels", handler_, *stream, take, mark));
}

grpc::Status StoreLinkService::FetchFile(grpc::ServerContext* context,
                                         const wire::FetchFileRequest* request,
                                         grpc::ServerWriter<wire::FetchFileResponse>* writer) {
  const auto send = [&]() -> Status {
    NDP_ASSIGN(const auto wanted, FromWire(*request));
    NDP_ASSIGN(const auto path, handler_.FileFor(wanted.first, wanted.second));
    NDP_ASSIGN(const int64_t num_bytes, SendFile(path, *writer));
    if (wanted.first == FileKind::kTail) handler_.OnTailSent(wanted.second, num_bytes, false);
    return {};
  };
  return ToGrpc(*context, send());
}

grpc::Status StoreLinkService::FetchTail(grpc::ServerContext* context,
                                         const wire::FetchTailRequest* request,
                                         grpc::ServerWriter<wire::FetchTailResponse>* writer) {
  const auto send = [&]() -> Status {
    NDP_ASSIGN(const TailQuestion wanted, FromWire(*request));
    NDP_ASSIGN(const TailRoute route, handler_.RouteToTail(wanted.tail, wanted.held));
    NDP_ASSIGN(const int64_t num_bytes, SendTail(route, *writer));
    handler_.OnTailSent(wanted.tail, num_bytes, route.base != Hash256{});
    return {};
  };
  return ToGrpc(*context, send());
}

}  // namespace ndpipe::rpc
