// Model deltas: what turns the weights that a store holds into the next model version's, after
// Check-N-Run (Eisenman et al., NSDI 2022): only tensors that changed, exactly or quantised.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ndpipe/base/hash.h"
#include "ndpipe/base/result.h"
#include "ndpipe/model/delta_weights.h"

namespace ndpipe::model {

struct ModelDelta {
  std::vector<uint8_t> bytes;  // docs/formats/delta.md
  // What every store holds after applying it, bit for bit, and its hash: `next` when the delta is
  // exact. It is the base of the next delta: then what quantisation lost here is part of the next
  // change, and errors do not add up over versions (error feedback).
  Weights result;
  Hash256 result_hash;
};

// bits: 0, exact; 8, 4, 2: changes of tensors of rank 2 and more are quantised to so many, where
// that takes fewer bytes than the exact coding; the others stay exact. base: what the store holds;
// null: nothing, and the delta is the full weights. A tensor whose first dimension grew, the others
// unchanged (classes added), is coded as the change of its old rows and the new rows.
// Deterministic. kInvalidArgument: other bits, or weights that CheckWeights refuses (a
// kResourceExhausted of it stays one).
Result<ModelDelta> MakeDelta(const Weights* base, const Weights& next, int bits);

struct DeltaEnds {
  Hash256 base;  // all zeros: none is needed
  Hash256 result;

  bool needs_base() const { return base != Hash256{}; }
};
// kDataLoss: damaged; kUnimplemented: of a later version of the format.
Result<DeltaEnds> ReadDeltaEnds(std::span<const uint8_t> delta);

// base: what the store holds; null: nothing. It is not looked at when the delta needs none.
// kInvalidArgument: a base that CheckWeights refuses. kFailedPrecondition: made against another
// base. kDataLoss: damaged, or the result is not the one
// it promises. kUnimplemented: of a later version of the format. Memory: the result, and a tensor
// more.
Result<Weights> ApplyDelta(const Weights* base, std::span<const uint8_t> delta);

}  // namespace ndpipe::model
