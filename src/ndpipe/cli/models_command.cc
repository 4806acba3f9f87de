#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "ndpipe/cli/local_model.h"
#include "ndpipe/cli/output.h"
#include "ndpipe/cli/remote.h"
#include "ndpipe/cli/version_commands.h"
#include "ndpipe/engine/torch/graph_executor.h"
#include "ndpipe/model/backbone_graph.h"

namespace ndpipe::cli {
namespace {

struct Flags {
  RemoteFlags remote;
  std::string onnx_file;
  std::string manifest;
  std::string model;
};

void PrintVersions(const std::vector<rpc::VersionStatus>& versions) {
  std::vector<std::vector<std::string>> rows = {
      {"version", "state", "backbone", "cut", "classes", "tail", "sent", "model", "made by"}};
  for (const auto& version : versions) {
    rows.push_back({std::to_string(version.number), version.state, version.backbone_name,
                    version.cut, std::to_string(version.num_classes),
                    FormatBytes(version.tail_bytes), FormatBytes(version.sent_bytes),
                    FormatBytes(version.model_bytes),
                    version.job == 0 ? "import" : fmt::format("job {}", version.job)});
  }
  PrintTable(rows);
}

Status List(const Flags& flags) {
  NDP_ASSIGN(const auto tuner, Connect(flags.remote));
  NDP_ASSIGN(const auto versions, tuner->ListVersions());
  if (flags.remote.json) {
    PrintJson(ToJson(versions));
  } else {
    PrintVersions(versions);
  }
  return {};
}

Status Add(const Flags& flags) {
  NDP_ASSIGN(const auto tuner, Connect(flags.remote));
  NDP_ASSIGN(const auto version, tuner->AddModel(flags.onnx_file, flags.manifest));
  if (flags.remote.json) {
    PrintJson(ToJson(version));
  } else {
    fmt::print("model version {}: backbone {} with its own {} classes\n", version.number,
               version.backbone_name, version.num_classes);
  }
  return {};
}

std::string FormatShape(const std::vector<int64_t>& dims) {
  return fmt::format("{}", fmt::join(dims, " × "));
}

void PrintCuts(const std::vector<model::Cut>& cuts, const model::Backbone& backbone) {
  std::vector<std::vector<std::string>> rows = {
      {"cut", "shape", "fp16 a photo", "GFLOPs before", "after", "parameters after"}};
  for (const auto& cut : cuts) {
    const std::string mark = cut.tensor == backbone.cut ? " (default)" : "";
    rows.push_back({cut.tensor + mark, FormatShape(cut.dims), FormatBytes(cut.feature_bytes),
                    fmt::format("{:.3f}", static_cast<double>(cut.body_flops) / 1e9),
                    fmt::format("{:.3f}", static_cast<double>(cut.tail_flops) / 1e9),
                    std::to_string(cut.tail_parameters)});
  }
  PrintTable(rows);
}

Json ToJson(const model::Cut& cut, const model::Backbone& backbone) {
  return {{"cut", cut.tensor},
          {"shape", cut.dims},
          {"feature_bytes", cut.feature_bytes},
          {"body_flops", cut.body_flops},
          {"tail_flops", cut.tail_flops},
          {"tail_parameters", cut.tail_parameters},
          {"default", cut.tensor == backbone.cut}};
}

// Needs no Tuner: the model is one of this machine.
Status ListCuts(const Flags& flags) {
  NDP_ASSIGN(const auto backbone, ImportLocalModel({.model = flags.model}));
  NDP_ASSIGN(const auto graph, model::ReadKeptGraph(backbone.onnx_file));
  NDP_ASSIGN(const auto cuts, engine::MeasureCuts(graph));
  if (!flags.remote.json) {
    PrintCuts(cuts, backbone);
    return {};
  }
  Json list = Json::array();
  for (const auto& cut : cuts) list.push_back(ToJson(cut, backbone));
  PrintJson(list);
  return {};
}

}  // namespace

void DeclareModels(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<Flags>();
  CLI::App* models = app.add_subcommand(
      "models", "list, serve, drop, compare or export model versions, add a backbone");
  models->fallthrough();
  DeclareRemoteFlags(*models, flags->remote);
  models->callback([flags, &invocation] {
    if (!invocation.run) invocation.run = [flags] { return List(*flags); };
  });
  CLI::App* add = models->add_subcommand("add", "add a backbone from an ONNX file");
  add->add_option("FILE", flags->onnx_file, "the ONNX file")->required();
  add->add_option("--manifest", flags->manifest,
                  "its manifest; not given: manifest.json beside the file");
  add->callback([flags, &invocation] { invocation.run = [flags] { return Add(*flags); }; });
  DeclareVersionCommands(*models, {flags, &flags->remote}, invocation);
  CLI::App* cuts =
      models->add_subcommand("cuts", "where a model can be cut, and what each cut costs");
  cuts->add_option("MODEL", flags->model, "an ONNX file, its folder, or a known name")->required();
  cuts->callback([flags, &invocation] { invocation.run = [flags] { return ListCuts(*flags); }; });
}

}  // namespace ndpipe::cli
