#include "ndpipe/tuner/planning.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "ndpipe/base/bytes.h"

namespace ndpipe::tuner {
namespace {

constexpr int64_t kMaxFeatureBlockBytes = int64_t{3} << 19;
constexpr int64_t kLargeBlock = 512;
constexpr int64_t kSmallBlock = 256;
constexpr int64_t kSmallShare = 16 * kLargeBlock;
constexpr int64_t kMaxRelabelBytes = int64_t{4} << 20;  // of a block's features, on the store
constexpr int64_t kBlocksPerShare = 256;

Hash256 OrderKey(const Hash256& id, uint64_t seed) {
  ByteWriter writer;
  writer.Write<uint64_t>(seed);
  writer.WriteBytes(id.bytes);
  return Sha256::Of(writer.bytes());
}

}  // namespace

int64_t PhotosPerBlock(int64_t feature_size, int64_t photos_of_store) {
  const int64_t wanted = photos_of_store > kSmallShare ? kLargeBlock : kSmallBlock;
  const int64_t photo_bytes = std::max<int64_t>(1, feature_size) * 2;
  return std::clamp<int64_t>(kMaxFeatureBlockBytes / photo_bytes, 1, wanted);
}

int64_t PhotosPerRelabelBlock(int64_t feature_size, int64_t photos_of_store) {
  const int64_t wanted =
      std::clamp(photos_of_store / kBlocksPerShare, kSmallBlock, rpc::kMaxPhotosPerBlock);
  const int64_t photo_bytes = std::max<int64_t>(1, feature_size) * 2;
  return std::clamp<int64_t>(kMaxRelabelBytes / photo_bytes, 1, wanted);
}

const label::Replica* ChooseReplica(const label::PlacedPhoto& photo,
                                    const std::set<std::string>& stores) {
  std::vector<const label::Replica*> candidates;
  for (const auto& replica : photo.replicas) {
    if (stores.contains(replica.store)) candidates.push_back(&replica);
  }
  if (candidates.empty()) return nullptr;
  return candidates[photo.id.Prefix64() % candidates.size()];
}

std::vector<int64_t> SliceRuns(const std::vector<Hash256>& ids, uint64_t seed, int64_t num_runs) {
  std::vector<Hash256> keys;
  keys.reserve(ids.size());
  for (const auto& id : ids) keys.push_back(OrderKey(id, seed));
  std::vector<size_t> order(ids.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return keys[a] < keys[b]; });
  std::vector<int64_t> runs(ids.size());
  for (size_t rank = 0; rank < order.size(); ++rank) {
    runs[order[rank]] = static_cast<int64_t>(rank) * num_runs / static_cast<int64_t>(order.size());
  }
  return runs;
}

std::vector<Block> MakeBlocks(std::vector<Planned> photos, int64_t feature_size,
                              int64_t first_block) {
  std::sort(photos.begin(), photos.end(), [](const Planned& a, const Planned& b) {
    return std::tie(a.run, a.store, a.number) < std::tie(b.run, b.store, b.number);
  });
  std::map<std::string, int64_t> photos_of_store;
  for (const auto& photo : photos) ++photos_of_store[photo.store];

  std::vector<Block> blocks;
  for (const auto& photo : photos) {
    const auto limit = PhotosPerBlock(feature_size, photos_of_store[photo.store]);
    const bool starts_block = blocks.empty() || blocks.back().store != photo.store ||
                              blocks.back().run != photo.run ||
                              static_cast<int64_t>(blocks.back().photos.size()) >= limit;
    if (starts_block) {
      Block block;
      block.number = first_block + static_cast<int64_t>(blocks.size());
      block.run = photo.run;
      block.store = photo.store;
      blocks.push_back(std::move(block));
    }
    blocks.back().photos.push_back(photo.number);
    blocks.back().samples.push_back(photo.sample);
  }
  return blocks;
}

std::vector<Block> MakeRelabelBlocks(Shares shares, int64_t feature_size, int64_t first_block) {
  std::vector<Block> blocks;
  for (auto& [store, photos] : shares) {
    std::sort(photos.begin(), photos.end());
    const int64_t total = std::ssize(photos);
    const int64_t limit = PhotosPerRelabelBlock(feature_size, total);
    for (int64_t first = 0; first < total; first += limit) {
      Block block;
      block.number = first_block + std::ssize(blocks);
      block.store = store;
      block.photos.assign(photos.begin() + first, photos.begin() + std::min(first + limit, total));
      blocks.push_back(std::move(block));
    }
    photos = {};
  }
  return blocks;
}

}  // namespace ndpipe::tuner
