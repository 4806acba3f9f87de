// Which of a backbone's cuts are worth measuring.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "ndpipe/model/cuts.h"

namespace ndpipe::plan {

struct CutChoice {
  std::vector<model::Cut> cuts;  // in the graph's order
  int64_t num_listed = 0;        // that the choice was made of
  int64_t num_too_large = 0;     // left out: one photo's features fit no block
  int64_t num_alike = 0;    // left out: as many bytes as the one kept beside it, and as much work
  int64_t num_thinned = 0;  // left out: another one of about this depth has fewer bytes
};

// cuts: as model::ListCuts gives them. Neighbours with equal bytes whose work differs by less than
// half a percent of the whole are one: the last stands for them, or the default cut. Of more than
// max_cuts, the depth (body FLOPs) is divided into as many parts, and the cut with the fewest bytes
// stands for each, the later of equals. The default cut is always kept. max_cuts ≥ 1.
CutChoice RepresentativeCuts(const std::vector<model::Cut>& cuts, std::string_view default_cut,
                             size_t max_cuts, int64_t max_feature_bytes);

}  // namespace ndpipe::plan
