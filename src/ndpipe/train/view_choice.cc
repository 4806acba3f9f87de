#include "ndpipe/train/view_choice.h"

#include "ndpipe/base/random.h"

namespace ndpipe::train {
namespace {

constexpr uint64_t kViewKey = 0x7669657773;  // no run has it

}  // namespace

int64_t ViewChoice::ViewOf(uint32_t photo, int64_t epoch) const {
  const auto views = static_cast<uint64_t>(pool_.views());
  const uint64_t first = RandomNumbers(seed_, kViewKey, photo).Below(views);
  return static_cast<int64_t>((first + static_cast<uint64_t>(run_ + epoch)) % views);
}

std::span<const uint32_t> ViewChoice::RowsOf(std::span<const uint32_t> photos, int64_t epoch) {
  if (pool_.views() == 1) return photos;
  rows_.clear();
  for (const uint32_t photo : photos) rows_.push_back(pool_.RowOf(photo, ViewOf(photo, epoch)));
  return rows_;
}

}  // namespace ndpipe::train
