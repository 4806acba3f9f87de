#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "ndpipe/cli/output.h"
#include "ndpipe/cli/remote.h"

namespace ndpipe::cli {
namespace {

struct Flags {
  RemoteFlags remote;
  std::string onnx_file;
  std::string manifest;
};

void PrintVersions(const std::vector<rpc::VersionStatus>& versions) {
  std::vector<std::vector<std::string>> rows = {
      {"version", "state", "backbone", "cut", "classes", "tail", "model", "made by"}};
  for (const auto& version : versions) {
    rows.push_back({std::to_string(version.number), version.state, version.backbone_name,
                    version.cut, std::to_string(version.num_classes),
                    FormatBytes(version.tail_bytes), FormatBytes(version.model_bytes),
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

}  // namespace

void DeclareModels(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<Flags>();
  CLI::App* models = app.add_subcommand("models", "list model versions, or add a backbone");
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
}

}  // namespace ndpipe::cli
