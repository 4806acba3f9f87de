// Who does what: pure functions from photos and connected stores to blocks
// (docs/decisions/0007-work-blocks.md).
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "ndpipe/label/label_database.h"
#include "ndpipe/tuner/job_table.h"

namespace ndpipe::tuner {

// At most 512, so that a feature block stays under 1.5 MiB, and at most 256 in small shares.
int64_t PhotosPerBlock(int64_t feature_size, int64_t photos_of_store);

// For a relabel, whose blocks hold no features: a 256th of the share, which is what a crash repeats
// at most of each block in progress; at least 256, at most 4096 photos and 4 MiB of features in the
// store's memory.
int64_t PhotosPerRelabelBlock(int64_t feature_size, int64_t photos_of_store);

// The replica that processes a photo, among the stores; the same whatever else is in the set as
// long as the candidates are. Null: it lies on none of them.
const label::Replica* ChooseReplica(const label::PlacedPhoto& photo,
                                    const std::set<std::string>& stores);

// Cuts photos into num_runs slices whose sizes differ by one at most: the run of each. Depends on
// seed and the set of ids only.
std::vector<int64_t> SliceRuns(const std::vector<Hash256>& ids, uint64_t seed, int64_t num_runs);

// One photo on its way into a block.
struct Planned {
  std::string store;
  int64_t run = 0;
  int64_t number = 0;
  Sample sample;
};

// Blocks of photos of one store and run, ascending by number in the store.
std::vector<Block> MakeBlocks(std::vector<Planned> photos, int64_t feature_size,
                              int64_t first_block);

// Numbers of photos by the store that processes them.
using Shares = std::map<std::string, std::vector<int64_t>>;
// Blocks of a relabel, in one run, ascending by number in the store.
std::vector<Block> MakeRelabelBlocks(Shares shares, int64_t feature_size, int64_t first_block);

}  // namespace ndpipe::tuner
