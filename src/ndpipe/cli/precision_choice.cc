#include "ndpipe/cli/precision_choice.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "ndpipe/base/file.h"
#include "ndpipe/base/hash.h"
#include "ndpipe/base/log.h"
#include "ndpipe/base/machine.h"
#include "ndpipe/cli/precision_record.h"
#include "ndpipe/cli/precision_trial.h"

namespace ndpipe::cli {
namespace {

// Descriptions begin with the engine, its version, device and precision.
std::string EngineOf(const LocalModel& model) {
  const std::string description = model.body->description();
  return description.substr(0, description.find(','));
}

// Of the bytes: a sample that has changed in any photo is another one.
Hash256 IdentityOf(photo::PhotoSource& source, std::span<const int64_t> sample) {
  Sha256 all;
  for (const int64_t number : sample) {
    const auto bytes = source.Read(number);
    all.Update(bytes ? Sha256::Of(*bytes).bytes : Hash256{}.bytes);
  }
  return all.Finish();
}

// What to try, each imported: fp32 first.
struct Trial {
  LocalModelOptions options;
  Result<model::Backbone> backbone;
};

std::vector<Trial> TrialsOf(const LocalModelOptions& options) {
  std::vector<Trial> trials;
  for (const char* precision : {"fp32", "bf16", "int8"}) {
    Trial trial{.options = options, .backbone = {}};
    trial.options.precision = precision;
    // bf16 runs the same backbone as fp32.
    trial.backbone = trials.size() == 1 ? trials[0].backbone : ImportLocalModel(trial.options);
    trials.push_back(std::move(trial));
  }
  return trials;
}

Result<std::filesystem::path> RecordFile(std::span<const Trial> trials, const Hash256& sample) {
  NDP_ASSIGN(const auto cache, CacheFolder());
  NDP_RETURN_IF_ERROR(MakeFolders(cache / "precision"));
  const auto& options = trials[0].options;
  const auto& int8 = trials.back().backbone;
  const std::string key =
      fmt::format("{}\n{}\n{}\n{}\n{}\n{}\n{}", trials[0].backbone->hash.Hex(),
                  int8 ? int8->hash.Hex() : "none", options.device, options.num_threads,
                  static_cast<int>(options.input_form), CpuName(), sample.Hex());
  return cache / "precision" / (Sha256::Of(key).Hex().substr(0, 32) + ".json");
}

// Why the variant's answers could not be compared photo by photo; empty when they can.
std::string Mismatch(const LocalModel& model, const LocalModel& reference) {
  if (model.backbone.manifest.preprocess != reference.backbone.manifest.preprocess ||
      model.backbone.manifest.mean != reference.backbone.manifest.mean ||
      model.backbone.manifest.std != reference.backbone.manifest.std) {
    return "its manifest has another preprocessing: quantise the model again";
  }
  if (model.own_tail.num_classes != reference.own_tail.num_classes) {
    return "it has another number of classes: quantise the model again";
  }
  return "";
}

// Opened models beside their candidates; none for those that are skipped.
struct Field {
  std::vector<PrecisionCandidate> candidates;
  std::vector<std::optional<LocalModel>> models;

  void Skip(std::string precision, std::string reason) {
    candidates.push_back({.precision = std::move(precision), .skipped = std::move(reason)});
    models.emplace_back();
  }
};

Result<Field> Measure(std::span<const Trial> trials, photo::PhotoSource& source,
                      std::span<const int64_t> sample, const extract::ExtractOptions& options,
                      int64_t& num_photos) {
  Field field;
  std::map<int64_t, int32_t> reference;
  for (const auto& trial : trials) {
    const std::string& precision = trial.options.precision;
    auto model = trial.backbone ? OpenLocalModel(trial.options, *trial.backbone)
                                : Result<LocalModel>(std::unexpected(trial.backbone.error()));
    if (!model && field.models.empty()) return std::unexpected(std::move(model).error());
    std::string reason = model ? "" : model.error().message;
    if (model && !field.models.empty()) reason = Mismatch(*model, *field.models[0]);
    if (!reason.empty()) {
      field.Skip(precision, std::move(reason));
      continue;
    }
    NDP_ASSIGN(auto classes, ClassesOf(*model, source, sample, options));
    if (field.models.empty()) reference = classes;
    field.candidates.push_back(
        {.precision = precision, .agreement = Agreement(classes, reference)});
    field.models.emplace_back(*std::move(model));
  }
  num_photos = static_cast<int64_t>(reference.size());
  std::vector<engine::BodyEngine*> bodies;
  for (auto& model : field.models) {
    if (model) bodies.push_back(model->body.get());
  }
  const auto rates = EngineRates(bodies);
  auto rate = rates.begin();
  for (auto& candidate : field.candidates) {
    if (candidate.skipped.empty()) candidate.images_per_second = *rate++;
  }
  return field;
}

Result<ChosenModel> OpenFp32(const Trial& trial, PrecisionChoice choice, std::string reason) {
  NDP_ASSIGN(auto model, OpenLocalModel(trial.options, *trial.backbone));
  choice.precision = "fp32";
  choice.reason = std::move(reason);
  return ChosenModel{std::move(model), std::move(choice)};
}

// The kept choice with its model; nothing when there is none, or it was made with another engine.
std::optional<ChosenModel> Remember(const std::filesystem::path& file,
                                    std::span<const Trial> trials) {
  auto record = ReadPrecisionRecord(file);
  if (!record) return std::nullopt;
  for (const auto& trial : trials) {
    if (trial.options.precision != record->choice.precision || !trial.backbone) continue;
    auto model = OpenLocalModel(trial.options, *trial.backbone);
    if (!model || EngineOf(*model) != record->engine) return std::nullopt;
    return ChosenModel{*std::move(model), std::move(record->choice)};
  }
  return std::nullopt;
}

Result<ChosenModel> Choose(Field field, int64_t num_photos) {
  ChosenModel chosen;
  chosen.choice.precision = FastestThatAgrees(field.candidates);
  chosen.choice.num_photos = num_photos;
  chosen.choice.reason =
      fmt::format("the fastest that agrees with fp32 on at least {:.0f} % of {} photos",
                  100 * kMinAgreement, num_photos);
  for (size_t i = 0; i < field.models.size(); ++i) {
    if (field.candidates[i].precision != chosen.choice.precision) continue;
    chosen.model = *std::move(field.models[i]);
  }
  chosen.choice.candidates = std::move(field.candidates);
  return chosen;
}

}  // namespace

std::string FastestThatAgrees(std::span<const PrecisionCandidate> candidates) {
  NDP_CHECK(!candidates.empty() && candidates[0].precision == "fp32");
  const PrecisionCandidate* best = candidates.data();
  for (const auto& candidate : candidates) {
    if (candidate.skipped.empty() && candidate.agreement >= kMinAgreement &&
        candidate.images_per_second > best->images_per_second) {
      best = &candidate;
    }
  }
  return best->precision;
}

Result<ChosenModel> OpenBestModel(const LocalModelOptions& options, photo::PhotoSource& source,
                                  std::span<const int64_t> numbers,
                                  const extract::ExtractOptions& extract_options) {
  const auto trials = TrialsOf(options);
  if (!trials[0].backbone) return std::unexpected(trials[0].backbone.error());
  const auto sample = SpreadSample(numbers, kMaxSamplePhotos);
  const std::string too_few =
      fmt::format("fewer than {} readable photos tell nothing about agreement", kMinSamplePhotos);
  if (static_cast<int64_t>(sample.size()) < kMinSamplePhotos) {
    return OpenFp32(trials[0], {}, too_few);
  }
  NDP_ASSIGN(const auto file, RecordFile(trials, IdentityOf(source, sample)));
  if (auto remembered = Remember(file, trials)) return *std::move(remembered);

  int64_t num_photos = 0;
  NDP_ASSIGN(auto field, Measure(trials, source, sample, extract_options, num_photos));
  if (num_photos < kMinSamplePhotos) {
    return OpenFp32(trials[0], {.num_photos = num_photos}, too_few);
  }
  NDP_ASSIGN(auto chosen, Choose(std::move(field), num_photos));
  const auto kept = WritePrecisionRecord(file, {EngineOf(chosen.model), chosen.choice});
  if (!kept) spdlog::warn("the choice of precision could not be kept: {}", kept.error().message);
  return chosen;
}

Json ToJson(const PrecisionChoice& choice) {
  Json candidates = Json::array();
  for (const auto& candidate : choice.candidates) {
    if (candidate.skipped.empty()) {
      candidates.push_back({{"precision", candidate.precision},
                            {"images_per_second", candidate.images_per_second},
                            {"agreement", candidate.agreement}});
    } else {
      candidates.push_back({{"precision", candidate.precision}, {"skipped", candidate.skipped}});
    }
  }
  return {{"precision", choice.precision},
          {"reason", choice.reason},
          {"photos", choice.num_photos},
          {"remembered", choice.remembered},
          {"candidates", candidates}};
}

void PrintPrecisionTable(const PrecisionChoice& choice) {
  std::vector<std::vector<std::string>> rows = {
      {"precision", "images/s (engine)", "agrees with fp32", ""}};
  for (const auto& candidate : choice.candidates) {
    const bool tried = candidate.skipped.empty();
    const bool chosen = candidate.precision == choice.precision;
    rows.push_back({candidate.precision,
                    tried ? fmt::format("{:.1f}", candidate.images_per_second) : "-",
                    tried ? fmt::format("{:.1f} %", 100 * candidate.agreement) : "-",
                    tried ? (chosen ? "chosen" : "") : candidate.skipped});
  }
  if (!choice.candidates.empty()) PrintTable(rows);
  fmt::print("precision {}{}: {}\n", choice.precision,
             choice.remembered ? " (measured by an earlier run)" : "", choice.reason);
}

}  // namespace ndpipe::cli
