// A tail's deltas in pieces, as FetchTail sends them.
#pragma once

#include <grpcpp/support/sync_stream.h>

#include "ndpipe/rpc/store_link.h"
#include "ndpipe/v1/store_link.grpc.pb.h"

namespace ndpipe::rpc {

struct TailQuestion {
  Hash256 tail;
  std::vector<Hash256> held;
};
void ToWire(const Hash256& tail, std::span<const Hash256> held, ndpipe::v1::FetchTailRequest& to);
Result<TailQuestion> FromWire(const ndpipe::v1::FetchTailRequest& from);  // kInvalidArgument

// The bytes that were sent. kUnavailable: the store is gone; else what reading a file says.
Result<int64_t> SendTail(const TailRoute& route,
                         grpc::ServerWriter<ndpipe::v1::FetchTailResponse>& writer);

// Until the stream ends. kUnavailable: it ended too early, and the call's status may say why;
// kInvalidArgument: not what FetchTail may answer, for one a base that is none of `held`;
// kDataLoss: damaged on its way. Memory: what has arrived, whatever sizes were promised.
Result<TailParts> ReceiveTail(grpc::ClientReader<ndpipe::v1::FetchTailResponse>& reader,
                              std::span<const Hash256> held);

}  // namespace ndpipe::rpc
