#include "ndpipe/tuner/planning.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>

#include "ndpipe/base/bytes.h"

namespace ndpipe::tuner {
namespace {

constexpr int64_t kMaxFeatureBlockBytes = int64_t{3} << 19;
constexpr int64_t kLargeBlock = 512;
constexpr int64_t kSmallBlock = 256;
constexpr int64_t kFewPhotos = 16 * kLargeBlock;
constexpr int64_t kMaxRelabelBytes = int64_t{4} << 20;  // of a block's features, on the store
constexpr int64_t kBlocksPerShare = 256;
constexpr int64_t kSmallestBlock = 32;  // an engine's batch

Hash256 OrderKey(const Hash256& id, uint64_t seed) {
  ByteWriter writer;
  writer.Write<uint64_t>(seed);
  writer.WriteBytes(id.bytes);
  return Sha256::Of(writer.bytes());
}

std::vector<std::string> StoresOf(const std::vector<label::Replica>& replicas) {
  std::vector<std::string> stores;
  stores.reserve(replicas.size());
  for (const auto& replica : replicas) stores.push_back(replica.store);
  return stores;
}

}  // namespace

int64_t PhotosPerBlock(int64_t feature_size, int64_t num_photos) {
  const int64_t wanted = num_photos > kFewPhotos ? kLargeBlock : kSmallBlock;
  const int64_t photo_bytes = std::max<int64_t>(1, feature_size) * 2;
  return std::clamp<int64_t>(kMaxFeatureBlockBytes / photo_bytes, 1, wanted);
}

int64_t PhotosPerRelabelBlock(int64_t feature_size, int64_t num_photos) {
  const int64_t wanted =
      std::clamp(num_photos / kBlocksPerShare, kSmallBlock, rpc::kMaxPhotosPerBlock);
  const int64_t photo_bytes = std::max<int64_t>(1, feature_size) * 2;
  return std::clamp<int64_t>(kMaxRelabelBytes / photo_bytes, 1, wanted);
}

std::vector<int64_t> BlockSizes(int64_t num_photos, int64_t photos_per_block, size_t num_holders) {
  // Each is half of what its holders, were they equal, would have left to do.
  const auto parts = 2 * static_cast<int64_t>(num_holders);
  const int64_t smallest = std::min(kSmallestBlock, photos_per_block);
  std::vector<int64_t> sizes;
  while (num_photos > 0) {
    int64_t size = photos_per_block;
    if (num_holders > 1) size = std::clamp(num_photos / parts, smallest, photos_per_block);
    sizes.push_back(std::min(size, num_photos));
    num_photos -= sizes.back();
  }
  return sizes;
}

bool LiesInOneOf(const std::vector<label::Replica>& replicas, const std::set<std::string>& stores) {
  return std::ranges::any_of(
      replicas, [&](const label::Replica& replica) { return stores.contains(replica.store); });
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
                              int64_t first_block, int views) {
  using Stores = std::vector<std::string>;
  std::map<Stores, int64_t> photos_in;  // of all runs
  std::map<std::tuple<int64_t, int, Stores>, std::vector<Planned*>> groups;
  for (auto& photo : photos) {
    auto stores = StoresOf(photo.replicas);
    ++photos_in[stores];
    const int of_photo = photo.sample.use == SampleUse::kTraining ? views : 1;
    groups[{photo.run, of_photo, std::move(stores)}].push_back(&photo);
  }
  std::vector<Block> blocks;
  for (auto& [key, group] : groups) {
    const auto& [run, views_a_photo, stores] = key;
    std::ranges::sort(group, {}, [](const Planned* p) { return p->replicas.front().number; });
    const int64_t limit = PhotosPerBlock(feature_size * views_a_photo, photos_in.at(stores));
    auto next = group.begin();
    for (const int64_t size : BlockSizes(std::ssize(group), limit, stores.size())) {
      Block block;
      block.number = first_block + std::ssize(blocks);
      block.run = run;
      block.views = views_a_photo;
      for (const auto& store : stores) block.holders.push_back({store, {}});
      for (const auto end = next + size; next != end; ++next) {
        const Planned& photo = **next;
        for (size_t h = 0; h < stores.size(); ++h) {
          block.holders[h].photos.push_back(photo.replicas[h].number);
        }
        block.samples.push_back(photo.sample);
      }
      blocks.push_back(std::move(block));
    }
  }
  return blocks;
}

void HeldPhotos::Add(const std::vector<label::Replica>& replicas) {
  auto& numbers = groups_[StoresOf(replicas)];
  numbers.resize(replicas.size());
  for (size_t i = 0; i < replicas.size(); ++i) numbers[i].push_back(replicas[i].number);
}

std::vector<Block> MakeRelabelBlocks(HeldPhotos photos, int64_t feature_size, int64_t first_block) {
  std::vector<Block> blocks;
  for (auto& [stores, numbers] : photos.groups_) {
    const int64_t total = std::ssize(numbers.front());
    std::vector<size_t> order(static_cast<size_t>(total));
    std::iota(order.begin(), order.end(), size_t{0});
    std::ranges::sort(order, {}, [&](size_t i) { return numbers.front()[i]; });
    const int64_t limit = PhotosPerRelabelBlock(feature_size, total);
    size_t first = 0;
    for (const int64_t size : BlockSizes(total, limit, stores.size())) {
      Block block;
      block.number = first_block + std::ssize(blocks);
      for (size_t h = 0; h < stores.size(); ++h) {
        Holder holder{stores[h], {}};
        holder.photos.reserve(static_cast<size_t>(size));
        for (size_t i = first; i < first + static_cast<size_t>(size); ++i) {
          holder.photos.push_back(numbers[h][order[i]]);
        }
        block.holders.push_back(std::move(holder));
      }
      first += static_cast<size_t>(size);
      blocks.push_back(std::move(block));
    }
    numbers = {};
  }
  return blocks;
}

}  // namespace ndpipe::tuner
