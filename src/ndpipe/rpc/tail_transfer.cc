#include "ndpipe/rpc/tail_transfer.h"

#include <algorithm>
#include <utility>

#include "ndpipe/base/bytes.h"
#include "ndpipe/rpc/file_transfer.h"
#include "ndpipe/rpc/foreign.h"

namespace ndpipe::rpc {

namespace wire = ndpipe::v1;

namespace {

struct TailSizes {
  Hash256 base;
  std::vector<int64_t> delta_bytes;
};

Result<TailSizes> FromWire(const wire::TailOpen& from, std::span<const Hash256> held) {
  TailSizes sizes;
  NDP_ASSIGN(sizes.base, CheckHash(from.base(), "TailOpen.base"));
  if (sizes.base != Hash256{} && std::ranges::find(held, sizes.base) == held.end()) {
    return Fail(ErrorCode::kInvalidArgument,
                "the deltas of a tail begin at one that this store did not name");
  }
  NDP_RETURN_IF_ERROR(CheckRange(from.delta_bytes_size(), 1, kMaxTailDeltas, "number of deltas"));
  int64_t total = 0;
  for (const int64_t bytes : from.delta_bytes()) {
    NDP_RETURN_IF_ERROR(CheckRange(bytes, 1, kMaxModelBytes - total, "TailOpen.delta_bytes"));
    total += bytes;
    sizes.delta_bytes.push_back(bytes);
  }
  return sizes;
}

std::unexpected<Error> Gone() {
  return Fail(ErrorCode::kUnavailable, "FetchTail stopped before its end: the connection was lost");
}

}  // namespace

void ToWire(const Hash256& tail, std::span<const Hash256> held, wire::FetchTailRequest& to) {
  to.set_tail(RawBytes(tail));
  for (const Hash256& hash : held) to.add_held(RawBytes(hash));
}

Result<TailQuestion> FromWire(const wire::FetchTailRequest& from) {
  TailQuestion question;
  NDP_ASSIGN(question.tail, CheckHash(from.tail(), "FetchTailRequest.tail"));
  NDP_RETURN_IF_ERROR(CheckRange(from.held_size(), 0, kMaxHeldTails, "number of held tails"));
  for (const std::string& raw : from.held()) {
    NDP_ASSIGN(const Hash256 hash, CheckHash(raw, "FetchTailRequest.held"));
    question.held.push_back(hash);
  }
  return question;
}

Result<int64_t> SendTail(const TailRoute& route,
                         grpc::ServerWriter<wire::FetchTailResponse>& writer) {
  std::vector<FileSender> files;
  wire::FetchTailResponse response;
  response.mutable_open()->set_base(RawBytes(route.base));
  int64_t total = 0;
  // All are opened before the first byte goes out: one that is dropped meanwhile can still be read.
  for (const auto& path : route.deltas) {
    NDP_ASSIGN(FileSender file, FileSender::Open(path, kMaxModelBytes));
    response.mutable_open()->add_delta_bytes(file.size_bytes());
    total += file.size_bytes();
    files.push_back(std::move(file));
  }
  if (!writer.Write(response)) return Gone();
  for (FileSender& file : files) {
    while (true) {
      NDP_ASSIGN(const auto piece, file.Next());
      if (piece.empty()) break;
      response.mutable_chunk()->set_data(piece.data(), piece.size());
      response.mutable_chunk()->set_crc32(Crc32(piece));
      if (!writer.Write(response)) return Gone();
    }
  }
  return total;
}

Result<TailParts> ReceiveTail(grpc::ClientReader<wire::FetchTailResponse>& reader,
                              std::span<const Hash256> held) {
  wire::FetchTailResponse response;
  if (!reader.Read(&response)) return Fail(ErrorCode::kUnavailable, "nothing of the tail arrived");
  if (!response.has_open()) {
    return Fail(ErrorCode::kInvalidArgument, "the tail came without its sizes");
  }
  NDP_ASSIGN(const TailSizes sizes, FromWire(response.open(), held));
  TailParts parts{.base = sizes.base, .deltas = {}};
  for (const int64_t wanted : sizes.delta_bytes) {
    std::vector<uint8_t>& delta = parts.deltas.emplace_back();
    while (std::cmp_less(delta.size(), wanted)) {
      if (!reader.Read(&response)) {
        return Fail(ErrorCode::kUnavailable, "only a part of the tail arrived");
      }
      const auto piece = AsBytes(response.chunk().data());
      if (!response.has_chunk() || piece.empty() ||
          std::cmp_greater(piece.size(), wanted - static_cast<int64_t>(delta.size()))) {
        return Fail(ErrorCode::kInvalidArgument, "the pieces of the tail do not fit its sizes");
      }
      if (Crc32(piece) != response.chunk().crc32()) {
        return Fail(ErrorCode::kDataLoss, "a piece of the tail was damaged on its way");
      }
      delta.insert(delta.end(), piece.begin(), piece.end());
    }
  }
  if (reader.Read(&response)) {
    return Fail(ErrorCode::kInvalidArgument, "more than the tail arrived");
  }
  return parts;
}

}  // namespace ndpipe::rpc
