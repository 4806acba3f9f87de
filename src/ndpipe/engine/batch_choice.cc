#include "ndpipe/engine/batch_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <random>
#include <vector>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/clock.h"
#include "ndpipe/base/file.h"

namespace ndpipe::engine {
namespace {

constexpr int kRounds = 5;
// A round ends when both are reached, or at kMaxRoundSeconds.
constexpr double kMinRoundSeconds = 0.3;
constexpr int64_t kMinRoundRequests = 24;
constexpr double kMaxRoundSeconds = 1.2;
// A larger request must gain so much in the middle round, and lose in one of them at most: a
// machine that others use for a moment must not decide what is kept for good.
constexpr double kLeastGain = 1.02;
constexpr size_t kMostLosses = 1;
// Each of them comes to lie in every slot, beside different neighbours.
constexpr int kProbePhotos = 7;
constexpr size_t kMaxFileBytes = 256;

// Inputs of kProbePhotos photos that differ in every element.
std::vector<std::vector<uint8_t>> MakeProbes(size_t photo_bytes, InputForm input_form) {
  std::minstd_rand random(1);  // the same for every body
  std::vector<std::vector<uint8_t>> probes(kProbePhotos, std::vector<uint8_t>(photo_bytes));
  for (auto& probe : probes) {
    if (input_form == InputForm::kPixels) {
      for (uint8_t& value : probe) value = static_cast<uint8_t>(random() >> 8);
    } else {
      for (size_t i = 0; i + sizeof(float) <= photo_bytes; i += sizeof(float)) {
        const float value = static_cast<float>(random() % 4096) / 1024.0F - 2;
        std::memcpy(&probe[i], &value, sizeof value);
      }
    }
  }
  return probes;
}

// What requests that run at once say of errors and features.
class Collector {
 public:
  explicit Collector(BodyEngine& body) : body_(body) {}

  // Photos slot by slot, as many as the request has.
  void Submit(const std::vector<std::vector<uint8_t>>& probes, size_t first, bool keep) {
    auto* request = body_.Acquire();
    const int num_photos = body_.batch_size();
    for (int slot = 0; slot < num_photos; ++slot) {
      const auto& probe = probes[(first + slot) % probes.size()];
      std::ranges::copy(probe, request->input().subspan(slot * probe.size()).begin());
    }
    body_.Submit(request, num_photos, [=, this](Status status, std::span<const Half> features) {
      std::lock_guard lock(mutex_);
      if (!status) status_ = std::move(status);
      if (keep && status_) Keep(first, features);
    });
  }
  // As Submit, with what the request holds.
  void SubmitAgain() {
    body_.Submit(body_.Acquire(), body_.batch_size(), [this](Status status, std::span<const Half>) {
      std::lock_guard lock(mutex_);
      if (!status) status_ = std::move(status);
    });
  }
  Status Finish() {
    body_.Drain();
    return status_;
  }
  // Of each submitted photo: its probe, and its features.
  struct Made {
    size_t probe = 0;
    std::vector<Half> features;
  };
  const std::vector<Made>& made() const { return made_; }

 private:
  void Keep(size_t first, std::span<const Half> features) {
    const auto size = static_cast<size_t>(body_.feature_size());
    for (size_t slot = 0; slot * size < features.size(); ++slot) {
      const auto mine = features.subspan(slot * size, size);
      made_.push_back({(first + slot) % kProbePhotos, {mine.begin(), mine.end()}});
    }
  }

  BodyEngine& body_;
  std::mutex mutex_;
  Status status_;
  std::vector<Made> made_;
};

// The features of the probes in all slots and streams.
Result<std::vector<Collector::Made>> MakeFeatures(BodyEngine& body, InputForm input_form) {
  auto* request = body.Acquire();
  const size_t photo_bytes = request->input().size() / body.batch_size();
  body.Release(request);
  const auto probes = MakeProbes(photo_bytes, input_form);
  Collector collector(body);
  const int num_requests = std::max(kProbePhotos, body.num_requests());
  for (int i = 0; i < num_requests; ++i) collector.Submit(probes, i, true);
  NDP_RETURN_IF_ERROR(collector.Finish());
  return collector.made();
}

bool SameBits(const std::vector<Half>& a, const std::vector<Half>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(Half)) == 0;
}

// Images a second, on the inputs that the requests hold: between the moments at which a request
// came free for the first time and for the last, so that neither the start nor the end, when
// streams run empty one by one, counts against large requests.
Result<double> MeasureRate(BodyEngine& body) {
  Collector collector(body);
  for (int i = 0; i < body.num_requests(); ++i) collector.SubmitAgain();
  auto* first_free = body.Acquire();
  const Stopwatch watch;
  body.Release(first_free);
  int64_t num_requests = 0;
  double seconds = 0;
  while ((seconds < kMinRoundSeconds || num_requests < kMinRoundRequests) &&
         seconds < kMaxRoundSeconds) {
    collector.SubmitAgain();
    body.Release(body.Acquire());
    seconds = watch.Seconds();
    ++num_requests;
  }
  NDP_RETURN_IF_ERROR(collector.Finish());
  return static_cast<double>(num_requests * body.batch_size()) / seconds;
}

struct Rates {
  double ours = 0;
  double others = 0;
  bool gains = false;
};

// Medians of rounds that take turns.
Result<Rates> CompareRates(BodyEngine& ours, BodyEngine& other) {
  std::vector<double> our_rates;
  std::vector<double> other_rates;
  std::vector<double> ratios;
  for (int round = 0; round < kRounds; ++round) {
    NDP_ASSIGN(const double our_rate, MeasureRate(ours));
    NDP_ASSIGN(const double other_rate, MeasureRate(other));
    our_rates.push_back(our_rate);
    other_rates.push_back(other_rate);
    ratios.push_back(our_rate / other_rate);
  }
  for (auto* figures : {&our_rates, &other_rates, &ratios}) std::ranges::sort(*figures);
  return Rates{.ours = our_rates[kRounds / 2],
               .others = other_rates[kRounds / 2],
               .gains = ratios[kRounds / 2] >= kLeastGain && ratios[kMostLosses] >= 1};
}

}  // namespace

Result<BatchChoice> ChooseBatch(const MakeBody& make, InputForm input_form) {
  BatchChoice choice;
  NDP_ASSIGN(auto best, make(choice.batch_size));
  NDP_ASSIGN(const auto features, MakeFeatures(*best, input_form));
  std::vector<const std::vector<Half>*> expected(kProbePhotos);
  for (const auto& made : features) expected[made.probe] = &made.features;
  for (const int batch_size : kBatchSizes) {
    if (batch_size == 1) continue;
    NDP_ASSIGN(auto body, make(batch_size));
    NDP_ASSIGN(const auto batched, MakeFeatures(*body, input_form));
    const bool same = std::ranges::all_of(batched, [&](const Collector::Made& made) {
      return SameBits(made.features, *expected[made.probe]);
    });
    if (!same) break;
    NDP_ASSIGN(const Rates rates, CompareRates(*body, *best));
    choice.images_per_second = rates.others;
    if (!rates.gains) break;
    choice = {.batch_size = batch_size, .images_per_second = rates.ours};
    best = std::move(body);
  }
  if (choice.images_per_second == 0) {
    NDP_ASSIGN(choice.images_per_second, MeasureRate(*best));
  }
  return choice;
}

std::optional<BatchChoice> ReadBatchChoice(const std::filesystem::path& file) {
  const auto bytes = ReadFile(file, kMaxFileBytes);
  if (!bytes) return std::nullopt;
  const std::string text(AsText(*bytes));
  BatchChoice choice;
  if (std::sscanf(text.c_str(), "batch_size %d\nimages_per_second %lf\n", &choice.batch_size,
                  &choice.images_per_second) != 2) {
    return std::nullopt;
  }
  const bool known = std::ranges::find(kBatchSizes, choice.batch_size) != std::end(kBatchSizes);
  if (!known || !(choice.images_per_second > 0)) return std::nullopt;
  return choice;
}

Status WriteBatchChoice(const std::filesystem::path& file, const BatchChoice& choice) {
  return WriteFileDurably(file, fmt::format("batch_size {}\nimages_per_second {:.3f}\n",
                                            choice.batch_size, choice.images_per_second));
}

}  // namespace ndpipe::engine
