// The weights of a model version as a list of named tensors, and the hash that names them: what
// model deltas (delta.h) lead from and to.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "ndpipe/base/hash.h"
#include "ndpipe/base/result.h"
#include "ndpipe/model/tail.h"

namespace ndpipe::model {

// Order counts: other orders are other bytes, and another hash.
struct Weights {
  std::map<std::string, std::string> metadata;
  std::vector<WeightTensor> tensors;
};

inline constexpr size_t kMaxWeightTensors = 65'536;
inline constexpr size_t kMaxWeightRank = 8;
inline constexpr int64_t kMaxWeightValues = int64_t{1} << 28;  // of all tensors: 1 GiB
inline constexpr size_t kMaxWeightNameBytes = 1024;            // of a tensor or a metadata key
inline constexpr size_t kMaxWeightMetadata = 256;              // entries
inline constexpr size_t kMaxWeightMetadataBytes = 65'535;      // of one entry's text

// The product of the dimensions. kResourceExhausted beyond kMaxWeightValues; kInvalidArgument for a
// dimension below 1 or a rank above kMaxWeightRank.
Result<int64_t> CountValues(const std::vector<int64_t>& shape);

// kInvalidArgument names the tensor whose name is empty, not printable, too long or taken, or whose
// shape and values disagree; kResourceExhausted beyond the bounds above.
Status CheckWeights(const Weights& weights);

// safetensors with F32 tensors in their order and keys sorted: the one spelling of these weights.
// For a tail's weights it is what SerializeTail writes. The weights are checked.
std::vector<uint8_t> SerializeWeights(const Weights& weights);
// SHA-256 of SerializeWeights(), without making the bytes.
Hash256 HashWeights(const Weights& weights);

// A safetensors file of F32 tensors, in the order of their bytes, however its header is spelt. Time
// and memory are bounded by the file's size. kDataLoss: not such a file, or its tensors overlap,
// leave gaps or end elsewhere than the file; otherwise as CheckWeights, which the weights pass.
Result<Weights> ParseWeights(std::span<const uint8_t> bytes);

// A tail's tensors and metadata as in its file: SerializeWeights(WeightsOf(tail)) is what
// SerializeTail writes.
Weights WeightsOf(const TailWeights& tail);
// The other way. kDataLoss or kInvalidArgument for weights that WeightsOf cannot have made of a
// tail that passes CheckTail.
Result<TailWeights> TailOf(Weights weights);

// Bit for bit: a NaN equals itself, and zero differs from -0.
bool SameBits(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace ndpipe::model
