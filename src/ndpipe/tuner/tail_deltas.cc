#include "ndpipe/tuner/tail_deltas.h"

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "ndpipe/base/file.h"
#include "ndpipe/base/log.h"
#include "ndpipe/model/delta.h"
#include "ndpipe/rpc/file_transfer.h"
#include "ndpipe/rpc/store_link.h"

namespace ndpipe::tuner {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kExtension = ".delta";
constexpr size_t kHashDigits = 64;

std::optional<std::pair<Hash256, Hash256>> ParseName(const std::string& name) {
  if (name.size() != 2 * kHashDigits + 1 + kExtension.size() || name[kHashDigits] != '-' ||
      !name.ends_with(kExtension)) {
    return std::nullopt;
  }
  const auto base = Hash256::FromHex(name.substr(0, kHashDigits));
  const auto result = Hash256::FromHex(name.substr(kHashDigits + 1, kHashDigits));
  if (!base || !result) return std::nullopt;
  return std::pair(*base, *result);
}

}  // namespace

Result<std::unique_ptr<TailDeltas>> TailDeltas::Open(const fs::path& folder) {
  NDP_RETURN_IF_ERROR(MakeFolders(folder));
  std::unique_ptr<TailDeltas> deltas(new TailDeltas(folder));
  deltas->Scan();
  return deltas;
}

void TailDeltas::Scan() {
  RemoveUnfinished(folder_);
  std::vector<std::tuple<fs::file_time_type, Ends, int64_t>> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    const std::string name = entry.path().filename().string();
    std::error_code unreadable;
    if (const auto ends = ParseName(name)) {
      const auto bytes = static_cast<int64_t>(entry.file_size(unreadable));
      const auto time = entry.last_write_time(unreadable);
      if (!unreadable) found.emplace_back(time, *ends, bytes);
    }
  }
  std::ranges::sort(found);
  for (const auto& [time, ends, bytes] : found) kept_[ends] = {bytes, next_age_++, false};
}

fs::path TailDeltas::FileOf(const Ends& ends) const {
  return folder_ / (ends.first.Hex() + "-" + ends.second.Hex() + std::string(kExtension));
}

Status TailDeltas::Keep(std::span<const uint8_t> delta) {
  NDP_ASSIGN(const auto read, model::ReadDeltaEnds(delta));
  const Ends ends(read.base, read.result);
  std::lock_guard lock(mutex_);
  if (kept_.contains(ends)) return {};
  NDP_RETURN_IF_ERROR(WriteFileDurably(FileOf(ends), delta));
  kept_[ends] = {static_cast<int64_t>(delta.size()), next_age_++, true};
  DropOldest();
  return {};
}

bool TailDeltas::Has(const Hash256& base, const Hash256& result) const {
  std::lock_guard lock(mutex_);
  return kept_.contains({base, result});
}

void TailDeltas::DropOldest() {
  while (kept_.size() > kMaxFiles) {
    Drop(std::ranges::min_element(kept_, {}, [](const auto& item) {
           return item.second.age;
         })->first);
  }
}

// Who is sending the file has it open.
void TailDeltas::Drop(const Ends& ends) {
  std::error_code ignored;  // a file that stays is found again at the next start
  fs::remove(FileOf(ends), ignored);
  kept_.erase(Ends(ends));
}

std::optional<std::vector<TailDeltas::Ends>> TailDeltas::Cheapest(
    const Hash256& result, std::span<const Hash256> bases) const {
  // Bellman and Ford, backwards from the result: the folder has few edges, and the length of a
  // chain is bounded.
  struct Way {
    int64_t num_bytes = 0;
    std::vector<Ends> chain;
  };
  std::map<Hash256, Way> best = {{result, {}}};
  for (size_t length = 0; length < rpc::kMaxTailDeltas; ++length) {
    auto longer = best;
    for (const auto& [ends, kept] : kept_) {
      const auto rest = best.find(ends.second);
      if (rest == best.end()) continue;
      const int64_t num_bytes = rest->second.num_bytes + kept.num_bytes;
      const auto known = longer.find(ends.first);
      if (known != longer.end() && known->second.num_bytes <= num_bytes) continue;
      Way way{num_bytes, {ends}};
      way.chain.insert(way.chain.end(), rest->second.chain.begin(), rest->second.chain.end());
      longer[ends.first] = std::move(way);
    }
    best = std::move(longer);
  }
  const Way* cheapest = nullptr;
  for (const Hash256& base : bases) {
    const auto found = best.find(base);
    if (found == best.end() || found->second.chain.empty()) continue;
    if (cheapest == nullptr || found->second.num_bytes < cheapest->num_bytes) {
      cheapest = &found->second;
    }
  }
  if (cheapest == nullptr) return std::nullopt;
  return cheapest->chain;
}

// Once in a life of the Tuner: a store that gets damaged bytes would ask again for nothing.
bool TailDeltas::Check(const Ends& ends) {
  Kept& kept = kept_.at(ends);
  std::error_code error;
  if (kept.is_checked && fs::exists(FileOf(ends), error)) return true;
  const auto bytes = ReadFile(FileOf(ends), static_cast<size_t>(rpc::kMaxModelBytes));
  const auto found = bytes ? model::ReadDeltaEnds(*bytes)
                           : Result<model::DeltaEnds>(std::unexpected(bytes.error()));
  kept.is_checked = found && found->base == ends.first && found->result == ends.second;
  if (kept.is_checked) return true;
  spdlog::warn("the delta {} is dropped: {}", FileOf(ends).filename().string(),
               found ? "it leads elsewhere than its name says" : found.error().message);
  Drop(ends);
  return false;
}

std::optional<TailDeltas::Route> TailDeltas::Find(const Hash256& result,
                                                  std::span<const Hash256> bases) {
  std::lock_guard lock(mutex_);
  while (const auto chain = Cheapest(result, bases)) {
    if (!std::ranges::all_of(*chain, [this](const Ends& ends) { return Check(ends); })) continue;
    Route route{.base = chain->front().first, .files = {}, .num_bytes = 0};
    for (const Ends& ends : *chain) {
      route.files.push_back(FileOf(ends));
      route.num_bytes += kept_.at(ends).num_bytes;
    }
    return route;
  }
  return std::nullopt;
}

}  // namespace ndpipe::tuner
