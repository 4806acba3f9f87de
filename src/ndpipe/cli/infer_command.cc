#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>
#include <vector>

#include "ndpipe/base/clock.h"
#include "ndpipe/base/log.h"
#include "ndpipe/cli/command.h"
#include "ndpipe/cli/infer_input.h"
#include "ndpipe/cli/label_rows.h"
#include "ndpipe/cli/local_model.h"
#include "ndpipe/cli/output.h"
#include "ndpipe/cli/precision_choice.h"
#include "ndpipe/cli/progress.h"
#include "ndpipe/extract/extractor.h"

namespace ndpipe::cli {
namespace {

constexpr int64_t kPhotosPerBlock = 256;
constexpr size_t kMaxShownFailures = 10;

struct Flags {
  LocalModelOptions model;
  std::string input;
  std::string layout;
  std::string output;
  bool json = false;
};

struct Inference {
  extract::ExtractStats stats;
  std::vector<LabelFailure> first_failures;
  double prepare_seconds = 0;
  double seconds = 0;  // wall clock from the first photo's reading until the labels are durable
  int64_t num_passed_over = 0;
  std::string_view input;                           // what the files hold
  std::optional<PrecisionChoice> precision_choice;  // of --precision auto
};

std::function<Result<std::optional<extract::WorkBlock>>()> BlocksOf(int64_t num_photos) {
  return [num_photos, next = int64_t{1},
          block = int64_t{0}]() mutable -> Result<std::optional<extract::WorkBlock>> {
    if (next > num_photos) return std::nullopt;
    extract::WorkBlock work;
    work.block = block++;
    const int64_t end = std::min(next + kPhotosPerBlock, num_photos + 1);
    for (; next < end; ++next) work.photos.push_back(next);
    return work;
  };
}

// Of preprocessed binaries: makes the model take them, and says how each is decoded.
Result<extract::Decode> PrepareForBinaries(InferInput& source, const std::string& layout,
                                           LocalModelOptions& model, Inference& inference) {
  NDP_ASSIGN(const auto backbone, ImportLocalModel(model));
  const auto& spec = backbone.manifest.preprocess;
  source.LimitBytes(photo::MaxPreprocessedBytes(spec.crop_height, spec.crop_width));
  NDP_ASSIGN(const auto form, TellForm(source, spec, layout));
  const bool is_float = form.element == photo::Element::kFloat32;
  model.input_form = is_float ? engine::InputForm::kTensor : engine::InputForm::kPixels;
  inference.input = is_float ? "preprocessed float32" : "preprocessed uint8";
  return [form](std::span<const uint8_t> bytes, std::span<uint8_t> input) {
    return photo::DecodePreprocessed(bytes, form, input);
  };
}

// What a PipeStore has decoded already need not be decoded again; its daemon may be running.
Status UseSidecars(InferInput& source, const LocalModelOptions& model,
                   extract::ExtractOptions& options) {
  if (!source.may_have_sidecars()) return {};
  NDP_ASSIGN(const auto backbone, ImportLocalModel(model));
  if (auto sidecars = source.FindSidecars(backbone.manifest.preprocess)) {
    options.lossless_codec = sidecars->codec;
    options.read_sidecar = std::move(sidecars->read);
  }
  return {};
}

Status Infer(LocalModel& local, const Flags& flags, const extract::ExtractOptions& options,
             InferInput& source, const std::stop_token& stop, Inference& inference) {
  NDP_ASSIGN(auto rows, LabelRows::Create(flags.output, local.backbone, source));
  Progress progress("labelling");
  int64_t done = 0;
  std::vector<engine::Top1> top1;
  const auto sink = [&](const extract::BlockFeatures& block) -> Status {
    top1.resize(block.photos.size());
    NDP_RETURN_IF_ERROR(local.tail->Classify(block.features, top1));
    NDP_RETURN_IF_ERROR(rows.Add(block, top1));
    done += static_cast<int64_t>(block.photos.size() + block.failures.size());
    progress.Update(done, source.num_photos());
    return {};
  };
  extract::Extractor extractor(local.backbone, local.precision, *local.body, source, options);
  const Stopwatch watch;
  auto stats = extractor.Run(BlocksOf(source.num_photos()), sink, stop);
  if (!stats && stats.error().code == ErrorCode::kCancelled) {
    return Fail(ErrorCode::kCancelled,
                fmt::format("stopped after {} of {} photos: nothing was written", done,
                            source.num_photos()));
  }
  NDP_ASSIGN(inference.stats, std::move(stats));
  NDP_RETURN_IF_ERROR(rows.Commit());
  inference.seconds = watch.Seconds();
  inference.first_failures = rows.first_failures();
  return {};
}

Result<LocalModel> Open(const LocalModelOptions& model, InferInput& source,
                        const extract::ExtractOptions& options, Inference& inference) {
  if (model.precision != "auto") return OpenLocalModel(model);
  std::vector<int64_t> numbers(static_cast<size_t>(source.num_photos()));
  std::iota(numbers.begin(), numbers.end(), 1);
  NDP_ASSIGN(auto chosen, OpenBestModel(model, source, numbers, options));
  inference.precision_choice = std::move(chosen.choice);
  return std::move(chosen.model);
}

double ImagesPerSecond(const Inference& inference) {
  return inference.seconds > 0 ? static_cast<double>(inference.stats.photos) / inference.seconds
                               : 0;
}

Json ToJson(const Inference& inference, const LocalModel& local) {
  const auto& stats = inference.stats;
  Json stages = Json::object();
  for (const auto& stage : stats.stages) {
    stages[stage.name] = {
        {"busy_seconds", stage.busy_seconds}, {"busy_share", stats.BusyShare(stage)},
        {"threads", stage.num_threads},       {"items", stage.items},
        {"mean_depth", stage.mean_depth},     {"largest_depth", stage.largest_depth}};
  }
  Json failures = Json::array();
  for (const auto& failure : inference.first_failures) {
    failures.push_back({{"path", failure.path}, {"reason", failure.reason}});
  }
  Json precision_choice = nullptr;
  if (inference.precision_choice) precision_choice = ToJson(*inference.precision_choice);
  return {{"model", local.backbone.manifest.name},
          {"engine", local.body->description()},
          {"precision_choice", precision_choice},
          {"input", inference.input},
          {"photos", stats.photos},
          {"labelled", stats.photos - stats.failed},
          {"failed", stats.failed},
          {"passed_over", inference.num_passed_over},
          {"from_sidecars", stats.from_sidecars},
          {"seconds", inference.seconds},
          {"images_per_second", ImagesPerSecond(inference)},
          {"prepare_seconds", inference.prepare_seconds},
          {"bottleneck", stats.Bottleneck().name},
          {"stages", stages},
          {"failures", failures}};
}

void PrintStages(const extract::ExtractStats& stats) {
  for (const auto& stage : stats.stages) {
    fmt::print("  {:<7} busy {:8.2f} s of {} thread{} ({:3.0f} %), {} items", stage.name,
               stage.busy_seconds, stage.num_threads, stage.num_threads == 1 ? "" : "s",
               100 * stats.BusyShare(stage), stage.items);
    if (stage.largest_depth > 0) {
      fmt::print("; queue {:.1f} on average, {} at most", stage.mean_depth, stage.largest_depth);
    }
    fmt::print("\n");
  }
  fmt::print("  the bottleneck is {}\n", stats.Bottleneck().name);
}

void PrintText(const Inference& inference, const LocalModel& local) {
  if (inference.precision_choice) PrintPrecisionTable(*inference.precision_choice);
  const auto& stats = inference.stats;
  fmt::print("{} photos in {:.2f} s: {:.1f} images/s by the wall clock; {} labelled, {} failed\n",
             stats.photos, inference.seconds, ImagesPerSecond(inference),
             stats.photos - stats.failed, stats.failed);
  fmt::print("{} with {}, ready in {:.1f} s; {}\n", local.backbone.manifest.name,
             local.body->description(), inference.prepare_seconds, inference.input);
  if (stats.from_sidecars > 0) {
    fmt::print("{} photos came from the store's sidecars\n", stats.from_sidecars);
  }
  PrintStages(stats);
  const auto& failures = inference.first_failures;
  for (size_t i = 0; i < std::min(failures.size(), kMaxShownFailures); ++i) {
    fmt::print("  failed: {}: {}\n", failures[i].path, failures[i].reason);
  }
  if (failures.size() > kMaxShownFailures) {
    fmt::print("  … and {} more (--output lists them)\n",
               stats.failed - static_cast<int64_t>(kMaxShownFailures));
  }
  if (inference.num_passed_over > 0) {
    fmt::print("  {} files beside them are no photos and were passed over\n",
               inference.num_passed_over);
  }
}

// Broken photos are no error of the command, but nothing labelled is.
Status TellFailures(const Inference& inference) {
  const auto& stats = inference.stats;
  if (stats.failed == 0) return {};
  if (stats.failed < stats.photos) {
    spdlog::warn("{} of {} photos failed and have no label", stats.failed, stats.photos);
    return {};
  }
  const auto& first = inference.first_failures.front();
  return Fail(ErrorCode::kFailedPrecondition, fmt::format("all of the {} photos failed; {}: {}",
                                                          stats.photos, first.path, first.reason));
}

Status Run(const Flags& flags, const std::stop_token& stop) {
  NDP_ASSIGN(const auto opened, OpenInferInput(flags.input, !flags.layout.empty()));
  Inference inference{.num_passed_over = opened.num_passed_over, .input = "photos"};
  LocalModelOptions model = flags.model;
  extract::ExtractOptions options;
  options.num_decoders = model.num_threads;
  const Stopwatch preparing;
  if (opened.is_preprocessed) {
    NDP_ASSIGN(options.decode, PrepareForBinaries(*opened.source, flags.layout, model, inference));
  } else {
    NDP_RETURN_IF_ERROR(UseSidecars(*opened.source, model, options));
  }
  NDP_ASSIGN(auto local, Open(model, *opened.source, options, inference));
  inference.prepare_seconds = preparing.Seconds();
  NDP_RETURN_IF_ERROR(Infer(local, flags, options, *opened.source, stop, inference));
  if (flags.json) {
    PrintJson(ToJson(inference, local));
  } else {
    PrintText(inference, local);
  }
  return TellFailures(inference);
}

}  // namespace

void DeclareInfer(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("infer", "label a folder of photos, without any server");
  command->add_option("MODEL", flags->model.model, "an ONNX file, its folder, or a known name")
      ->required();
  command
      ->add_option("DIR", flags->input,
                   "a folder or a zip, of photos or of preprocessed binaries (raw deflate, zlib, "
                   "gzip or uncompressed); a photo store; a photo")
      ->required();
  command
      ->add_option("--layout", flags->layout,
                   "the files are preprocessed binaries; of uint8 pixels, which must say it: hwc "
                   "or chw")
      ->check(CLI::IsMember({"hwc", "chw"}));
  command->add_option("--output", flags->output,
                      "a CSV file: path, label, class_index, confidence, error");
  AddSetting(*command, "--device", flags->model.device, "cpu or cuda:N")->capture_default_str();
  command
      ->add_option("--precision", flags->model.precision,
                   "fp32; bf16; int8, of the model's quantised variant; auto: the fastest that "
                   "agrees with fp32 on the photos")
      ->check(CLI::IsMember({"fp32", "bf16", "int8", "auto"}))
      ->capture_default_str();
  AddSetting(*command, "--threads", flags->model.num_threads, "cores to use; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_flag("--json", flags->json, "print JSON");
  command->callback([flags, &invocation] {
    invocation.run = [flags, &invocation] { return Run(*flags, invocation.stop); };
  });
}

}  // namespace ndpipe::cli
