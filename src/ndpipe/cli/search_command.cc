#include <fmt/format.h>

#include <memory>

#include "ndpipe/cli/output.h"
#include "ndpipe/cli/remote.h"

namespace ndpipe::cli {
namespace {

struct Flags {
  RemoteFlags remote;
  rpc::SearchRequest request;
  bool failed = false;
};

Status ListFailures(const Flags& flags) {
  NDP_ASSIGN(const auto tuner, Connect(flags.remote));
  NDP_ASSIGN(const auto failures, tuner->ListFailures(flags.request.limit));
  if (flags.remote.json) {
    PrintJson(ToJson(failures));
    return {};
  }
  std::vector<std::vector<std::string>> rows = {{"version", "photo", "origin", "reason"}};
  for (const auto& photo : failures) {
    rows.push_back({std::to_string(photo.version), photo.photo_id,
                    photo.origin.empty() ? photo.path : photo.origin, photo.reason});
  }
  PrintTable(rows);
  return {};
}

Status Run(const Flags& flags) {
  if (flags.failed) return ListFailures(flags);
  NDP_ASSIGN(const auto tuner, Connect(flags.remote));
  NDP_ASSIGN(const auto hits, tuner->Search(flags.request));
  if (flags.remote.json) {
    PrintJson(ToJson(hits));
    return {};
  }
  std::vector<std::vector<std::string>> rows = {{"confidence", "source", "photo", "origin"}};
  for (const auto& hit : hits) {
    rows.push_back({fmt::format("{:.3f}", hit.confidence),
                    hit.version == 0 ? hit.source : fmt::format("{} v{}", hit.source, hit.version),
                    hit.photo_id, hit.origin.empty() ? hit.path : hit.origin});
  }
  PrintTable(rows);
  return {};
}

}  // namespace

void DeclareSearch(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app.add_subcommand("search", "find photos by label, or those that could not be labelled");
  DeclareRemoteFlags(*command, flags->remote);
  CLI::Option* label = command->add_option("LABEL", flags->request.label, "the label's name");
  CLI::Option* failed = command->add_flag(
      "--failed", flags->failed, "instead: photos that failed in the serving version, and why");
  label->excludes(failed);
  command->add_option("--source", flags->request.source, "whose label: any, user, model")
      ->check(CLI::IsMember({"any", "user", "model"}))
      ->capture_default_str();
  command
      ->add_option("--model-version", flags->request.version,
                   "search what this version says, whether or not readers see it")
      ->check(CLI::PositiveNumber)
      ->excludes(failed);
  command->add_option("--limit", flags->request.limit, "at most so many photos")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  command->callback([flags, label, &invocation] {
    if (!flags->failed && label->count() == 0) throw CLI::RequiredError("LABEL or --failed");
    invocation.run = [flags] { return Run(*flags); };
  });
}

}  // namespace ndpipe::cli
