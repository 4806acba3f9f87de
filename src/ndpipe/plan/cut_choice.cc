#include "ndpipe/plan/cut_choice.h"

#include <algorithm>
#include <map>

#include "ndpipe/base/result.h"

namespace ndpipe::plan {
namespace {

constexpr double kAlikeShare = 0.005;  // of all FLOPs

bool AreAlike(const model::Cut& a, const model::Cut& b) {
  const auto all = static_cast<double>(a.body_flops + a.tail_flops);
  const auto between = static_cast<double>(std::abs(b.body_flops - a.body_flops));
  return a.feature_bytes == b.feature_bytes && between <= kAlikeShare * all;
}

// The later cut of a pair of neighbours that are alike, but for the default one.
std::vector<model::Cut> WithoutAlike(const std::vector<model::Cut>& cuts,
                                     std::string_view default_cut) {
  std::vector<model::Cut> kept;
  for (const auto& cut : cuts) {
    const bool is_same = !kept.empty() && AreAlike(kept.back(), cut);
    if (!is_same) {
      kept.push_back(cut);
    } else if (kept.back().tensor != default_cut) {
      kept.back() = cut;
    }
  }
  return kept;
}

std::vector<model::Cut> Thinned(const std::vector<model::Cut>& cuts, std::string_view default_cut,
                                size_t max_cuts) {
  const bool has_default =
      std::ranges::any_of(cuts, [&](const auto& cut) { return cut.tensor == default_cut; });
  const size_t num_parts = std::max<size_t>(1, max_cuts - (has_default && max_cuts > 1 ? 1 : 0));
  const int64_t all = std::max<int64_t>(1, cuts.back().body_flops);
  std::map<size_t, size_t> best_of;  // the index of a cut, by part
  for (size_t i = 0; i < cuts.size(); ++i) {
    if (cuts[i].tensor == default_cut) continue;
    const double depth = static_cast<double>(cuts[i].body_flops) / static_cast<double>(all);
    const auto part =
        std::min(static_cast<size_t>(depth * static_cast<double>(num_parts)), num_parts - 1);
    const auto [found, is_new] = best_of.emplace(part, i);
    if (!is_new && cuts[i].feature_bytes <= cuts[found->second].feature_bytes) found->second = i;
  }
  std::vector<model::Cut> kept;
  for (size_t i = 0; i < cuts.size(); ++i) {
    const bool is_best =
        std::ranges::any_of(best_of, [&](const auto& entry) { return entry.second == i; });
    const bool is_default = cuts[i].tensor == default_cut;
    if (is_default || (is_best && !(has_default && max_cuts == 1))) kept.push_back(cuts[i]);
  }
  return kept;
}

}  // namespace

CutChoice RepresentativeCuts(const std::vector<model::Cut>& cuts, std::string_view default_cut,
                             size_t max_cuts, int64_t max_feature_bytes) {
  NDP_CHECK(max_cuts >= 1);
  CutChoice choice;
  choice.num_listed = std::ssize(cuts);
  std::vector<model::Cut> small;
  for (const auto& cut : cuts) {
    if (cut.feature_bytes <= max_feature_bytes) small.push_back(cut);
  }
  choice.num_too_large = std::ssize(cuts) - std::ssize(small);
  choice.cuts = WithoutAlike(small, default_cut);
  choice.num_alike = std::ssize(small) - std::ssize(choice.cuts);
  if (choice.cuts.size() <= max_cuts) return choice;
  auto kept = Thinned(choice.cuts, default_cut, max_cuts);
  choice.num_thinned = std::ssize(choice.cuts) - std::ssize(kept);
  choice.cuts = std::move(kept);
  return choice;
}

}  // namespace ndpipe::plan
