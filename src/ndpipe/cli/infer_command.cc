#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "ndpipe/base/clock.h"
#include "ndpipe/base/file.h"
#include "ndpipe/cli/command.h"
#include "ndpipe/cli/local_model.h"
#include "ndpipe/cli/output.h"
#include "ndpipe/cli/photo_folder.h"
#include "ndpipe/cli/progress.h"
#include "ndpipe/extract/extractor.h"

namespace ndpipe::cli {
namespace {

constexpr int64_t kPhotosPerBlock = 256;

struct Flags {
  LocalModelOptions model;
  std::string folder;
  std::string output;
  bool json = false;
};

struct Outcome {
  engine::Top1 top1;
  std::string error;  // empty: labelled
};

struct Inference {
  std::vector<Outcome> outcomes;  // of photo i + 1
  extract::ExtractStats stats;
  double seconds = 0;  // wall clock from the first photo's reading to the last label
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

Result<Inference> Infer(LocalModel& local, model::Precision precision, PhotoFolder& photos,
                        int num_threads, const std::stop_token& stop) {
  Inference inference;
  inference.outcomes.resize(static_cast<size_t>(photos.num_photos()));
  Progress progress("labelling");
  int64_t done = 0;
  const auto sink = [&](extract::BlockFeatures block) -> Status {
    std::vector<engine::Top1> top1(block.photos.size());
    NDP_RETURN_IF_ERROR(local.tail->Classify(block.features, top1));
    for (size_t i = 0; i < top1.size(); ++i) {
      inference.outcomes[static_cast<size_t>(block.photos[i] - 1)].top1 = top1[i];
    }
    for (auto& failure : block.failures) {
      inference.outcomes[static_cast<size_t>(failure.photo - 1)].error = std::move(failure.reason);
    }
    done += static_cast<int64_t>(block.photos.size() + block.failures.size());
    progress.Update(done, photos.num_photos());
    return {};
  };
  extract::ExtractOptions options;
  options.num_decoders = num_threads;
  extract::Extractor extractor(local.backbone, precision, *local.body, photos, options);
  const Stopwatch watch;
  NDP_ASSIGN(inference.stats, extractor.Run(BlocksOf(photos.num_photos()), sink, stop));
  inference.seconds = watch.Seconds();
  return inference;
}

std::string Quoted(const std::string& field) {
  if (field.find_first_of(",\"\r\n") == std::string::npos) return field;
  std::string quoted = "\"";
  for (char c : field) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + "\"";
}

std::string ClassName(const model::Backbone& backbone, int32_t class_index) {
  const auto& names = backbone.manifest.class_names;
  const auto index = static_cast<size_t>(class_index);
  return index < names.size() ? names[index] : std::to_string(class_index);
}

std::string FormatCsv(const Inference& inference, const LocalModel& local,
                      const PhotoFolder& photos) {
  std::string csv = "path,label,class_index,confidence,error\n";
  for (size_t i = 0; i < inference.outcomes.size(); ++i) {
    const auto& outcome = inference.outcomes[i];
    csv += Quoted(photos.RelativePath(static_cast<int64_t>(i) + 1));
    if (outcome.error.empty()) {
      csv += fmt::format(",{},{},{:.6f},\n",
                         Quoted(ClassName(local.backbone, outcome.top1.class_index)),
                         outcome.top1.class_index, outcome.top1.confidence);
    } else {
      csv += fmt::format(",,,,{}\n", Quoted(outcome.error));
    }
  }
  return csv;
}

void Print(const Inference& inference, const LocalModel& local, double prepare_seconds, bool json) {
  const auto& stats = inference.stats;
  const double rate =
      inference.seconds > 0 ? static_cast<double>(stats.photos) / inference.seconds : 0;
  if (json) {
    Json stages = Json::object();
    for (const auto& stage : stats.stages) {
      stages[stage.name] = {{"busy_seconds", stage.busy_seconds},
                            {"threads", stage.num_threads},
                            {"items", stage.items}};
    }
    return PrintJson({{"model", local.backbone.manifest.name},
                      {"engine", local.body->description()},
                      {"photos", stats.photos},
                      {"labelled", stats.photos - stats.failed},
                      {"failed", stats.failed},
                      {"seconds", inference.seconds},
                      {"images_per_second", rate},
                      {"prepare_seconds", prepare_seconds},
                      {"stages", stages}});
  }
  fmt::print("{} photos in {:.2f} s: {:.1f} images/s by the wall clock; {} labelled, {} failed\n",
             stats.photos, inference.seconds, rate, stats.photos - stats.failed, stats.failed);
  fmt::print("{} with {}, ready in {:.1f} s\n", local.backbone.manifest.name,
             local.body->description(), prepare_seconds);
  for (const auto& stage : stats.stages) {
    const double capacity = inference.seconds * stage.num_threads;
    fmt::print("  {:<7} busy {:6.2f} s of {} thread{} ({:.0f} %)\n", stage.name, stage.busy_seconds,
               stage.num_threads, stage.num_threads == 1 ? "" : "s",
               capacity > 0 ? 100 * stage.busy_seconds / capacity : 0);
  }
}

Status Run(const Flags& flags, const std::stop_token& stop) {
  NDP_ASSIGN(const auto precision, model::ParsePrecision(flags.model.precision));
  NDP_ASSIGN(auto photos, PhotoFolder::Open(flags.folder));
  if (photos.num_photos() == 0) {
    return Fail(ErrorCode::kNotFound, "no photos (JPEG, PNG, WebP, HEIF, AVIF) in " + flags.folder);
  }
  const Stopwatch preparing;
  NDP_ASSIGN(auto local, OpenLocalModel(flags.model));
  const double prepare_seconds = preparing.Seconds();
  NDP_ASSIGN(const auto inference, Infer(local, precision, photos, flags.model.num_threads, stop));
  if (!flags.output.empty()) {
    NDP_RETURN_IF_ERROR(
        WriteFileDurably(flags.output, std::string_view(FormatCsv(inference, local, photos))));
  }
  Print(inference, local, prepare_seconds, flags.json);
  return {};
}

}  // namespace

void DeclareInfer(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("infer", "label a folder of photos, without any server");
  command->add_option("MODEL", flags->model.model, "an ONNX file, its folder, or a known name")
      ->required();
  command->add_option("DIR", flags->folder, "the folder")->required();
  command->add_option("--output", flags->output,
                      "a CSV file: path, label, class_index, confidence, error");
  AddSetting(*command, "--device", flags->model.device, "cpu or cuda:N")->capture_default_str();
  command->add_option("--precision", flags->model.precision, "fp32, bf16")
      ->check(CLI::IsMember({"fp32", "bf16"}))
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
