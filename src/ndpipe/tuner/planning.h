// Who can do what: pure functions from photos and the stores where they lie to blocks
// (docs/decisions/0007-work-blocks.md, 0019-replicas-balance-the-load.md).
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "ndpipe/label/label_database.h"
#include "ndpipe/tuner/job_table.h"

namespace ndpipe::tuner {

// At most 512, so that a feature block stays under 1.5 MiB, and at most 256 where there are few.
// num_photos: that lie in the same stores.
int64_t PhotosPerBlock(int64_t feature_size, int64_t num_photos);

// For a relabel, whose blocks hold no features: a 256th of the photos, which is what a crash
// repeats at most of each block in progress; at least 256, at most 4096 photos and 4 MiB of
// features in the store's memory.
int64_t PhotosPerRelabelBlock(int64_t feature_size, int64_t num_photos);

// What blocks hold, in the order in which they are handed out. Of photos that several stores have
// the last blocks are small, so that these stores end together.
std::vector<int64_t> BlockSizes(int64_t num_photos, int64_t photos_per_block, size_t num_holders);

bool LiesInOneOf(const std::vector<label::Replica>& replicas, const std::set<std::string>& stores);

// Cuts photos into num_runs slices whose sizes differ by one at most: the run of each. Depends on
// seed and the set of ids only.
std::vector<int64_t> SliceRuns(const std::vector<Hash256>& ids, uint64_t seed, int64_t num_runs);

// One photo on its way into a block.
struct Planned {
  int64_t run = 0;
  std::vector<label::Replica> replicas;  // by store id; one at least
  Sample sample;
};

// Blocks of photos of one run and the same stores, ascending by number in the first of these.
// views: of each training photo; with more than one these have blocks of their own.
std::vector<Block> MakeBlocks(std::vector<Planned> photos, int64_t feature_size,
                              int64_t first_block, int views = 1);

// Photos by the stores where they lie. Numbers only: a relabel may have millions.
class HeldPhotos {
 public:
  void Add(const std::vector<label::Replica>& replicas);  // by store id; one at least
  bool empty() const { return groups_.empty(); }

 private:
  friend std::vector<Block> MakeRelabelBlocks(HeldPhotos photos, int64_t feature_size,
                                              int64_t first_block);
  // By stores: for each of them the photos' numbers in it, in one order.
  std::map<std::vector<std::string>, std::vector<std::vector<int64_t>>> groups_;
};
// Blocks of a relabel, in one run, ascending by number in the first store.
std::vector<Block> MakeRelabelBlocks(HeldPhotos photos, int64_t feature_size, int64_t first_block);

}  // namespace ndpipe::tuner
