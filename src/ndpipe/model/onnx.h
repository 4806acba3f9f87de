// ONNX files: bytes ↔ Graph.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "ndpipe/base/result.h"
#include "ndpipe/model/graph.h"
#include "ndpipe/model/wire.h"

namespace ndpipe::model {

// protobuf refuses messages of 2 GiB and more, and with it every program that reads ONNX.
inline constexpr uint64_t kMaxOnnxBytes = (uint64_t{1} << 31) - 1;

// Where a tensor's bytes lie outside the ONNX file, as the file says: not checked yet.
struct ExternalReference {
  std::string location;  // a file name relative to the model's folder
  uint64_t offset = 0;
  uint64_t num_bytes = 0;
};
struct ExternalBytes {
  std::span<const uint8_t> bytes;  // exactly num_bytes
  std::shared_ptr<const void> owner;
};
// Called while reading, once a tensor that lies outside.
using ExternalResolver = std::function<Result<ExternalBytes>(const ExternalReference&)>;

// Reads the structure; what it means is CheckGraph's business. Tensors view `file` where they can,
// and keep `owner` alive. resolver empty: external data is refused. Time and memory are bounded by
// a small multiple of the file's size, and by fixed limits. kInvalidArgument: truncated, not ONNX,
// or inconsistent (a tensor whose bytes do not fit its shape); kResourceExhausted: beyond the
// limits; kUnimplemented: subgraphs, local functions, sparse and string tensors, element types that
// are not read. Messages name the node or tensor.
Result<Graph> ReadOnnx(std::span<const uint8_t> file, std::shared_ptr<const void> owner,
                       const ExternalResolver& resolver);

// The graph as an ONNX file with all weights inside. Borrows the tensors' bytes from the graph.
// Equal graphs give equal bytes. kResourceExhausted beyond kMaxOnnxBytes.
Result<WireMessage> WriteOnnx(const Graph& graph);

}  // namespace ndpipe::model
