// The parts of the ONNX reader that every message shares: limits, and tensors.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/model/onnx.h"

namespace ndpipe::model {

inline constexpr size_t kMaxRank = 16;

// What one file may cost: a small field of the file becomes a much larger object in memory, so
// their number is bounded, not only the file's size.
class ReadBudget {
 public:
  Status Items(uint64_t count);         // fields, names, numbers of attributes
  Status DecodedBytes(uint64_t count);  // tensors that cannot be viewed in place

  // A string fit to be a name: at most 4,096 bytes of UTF-8 without control characters.
  Result<std::string> Name(const WireField& field);
  // A repeated number, packed or not.
  Status AppendInts(const WireField& field, std::vector<int64_t>& values);
  Status AppendFloats(const WireField& field, std::vector<float>& values);

 private:
  uint64_t items_left_ = uint64_t{16} << 20;
  uint64_t decoded_bytes_left_ = uint64_t{1} << 30;
};

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

// Reads TensorProto messages. Borrows the budget and the resolver.
class TensorReader {
 public:
  TensorReader(ReadBudget& budget, std::shared_ptr<const void> owner,
               const ExternalResolver& resolver)
      : budget_(budget), owner_(std::move(owner)), resolver_(resolver) {}

  Result<NamedTensor> Read(std::span<const uint8_t> message);

 private:
  struct Parts;
  Status ReadField(const WireField& field, Parts& parts);
  Status ReadExternalEntry(std::span<const uint8_t> message, Parts& parts);
  Result<Tensor> Assemble(Parts& parts);
  Result<std::vector<uint8_t>> DecodeTyped(DataType type, std::span<const WireField> fields);
  Result<Tensor> AssembleExternal(Parts& parts, uint64_t num_bytes);

  ReadBudget& budget_;
  const std::shared_ptr<const void> owner_;
  const ExternalResolver& resolver_;
};

}  // namespace ndpipe::model
