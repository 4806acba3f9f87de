#include <fmt/format.h>

#include <memory>

#include "ndpipe/cli/command.h"
#include "ndpipe/cli/output.h"
#include "ndpipe/cli/progress.h"
#include "ndpipe/photo/importing/importer.h"

namespace ndpipe::cli {
namespace {

constexpr size_t kMaxShownFailures = 10;

struct Flags {
  std::string source;
  std::string store;
  bool in_place = false;
  bool json = false;
};

void PrintReport(const photo::ImportReport& report) {
  fmt::print("{} photos found: {} added ({}), {} known already, {} failed; {} source labels; {}\n",
             report.found, report.added, FormatBytes(report.bytes), report.known, report.failed,
             report.source_labels, FormatSeconds(report.seconds));
  for (size_t i = 0; i < report.failures.size() && i < kMaxShownFailures; ++i) {
    fmt::print("  failed: {}: {}\n", report.failures[i].origin, report.failures[i].reason);
  }
  if (report.failures.size() > kMaxShownFailures) {
    fmt::print("  … and {} more (--json lists them)\n",
               report.failed - static_cast<int64_t>(kMaxShownFailures));
  }
}

Json ToJson(const photo::ImportReport& report) {
  Json failures = Json::array();
  for (const auto& failure : report.failures) {
    failures.push_back({{"origin", failure.origin}, {"reason", failure.reason}});
  }
  return {{"found", report.found},
          {"added", report.added},
          {"known", report.known},
          {"failed", report.failed},
          {"source_labels", report.source_labels},
          {"bytes", report.bytes},
          {"seconds", report.seconds},
          {"failures", failures}};
}

Status Run(const Flags& flags, const std::stop_token& stop) {
  NDP_ASSIGN(const auto store, photo::PhotoStore::Open(flags.store));
  photo::ImportReport report;
  {
    Progress progress("importing");
    photo::ImportOptions options;
    options.in_place = flags.in_place;
    options.stop = stop;
    options.on_progress = [&](const photo::ImportProgress& now) {
      progress.Update(now.done, now.total);
    };
    NDP_ASSIGN(report, photo::Import(*store, flags.source, options));
  }
  if (flags.json) {
    PrintJson(ToJson(report));
  } else {
    PrintReport(report);
  }
  return {};
}

}  // namespace

void DeclareImport(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("import", "bring photos (and their labels) into a store");
  command
      ->add_option("SOURCE", flags->source,
                   "a folder; a tree FOLDER/LABEL/photo (folder names become labels); "
                   "cifar100:FILE; cifar100:download; webdataset:FILE.tar; "
                   "generate:CLASSES,COUNT,SEED")
      ->required();
  AddSetting(*command, "--store", flags->store, "the photo store's folder")->required();
  command->add_flag("--in-place", flags->in_place,
                    "leave the photos where they are; import again to notice changes");
  command->add_flag("--json", flags->json, "print JSON");
  command->callback([flags, &invocation] {
    invocation.run = [flags, &invocation] { return Run(*flags, invocation.stop); };
  });
}

}  // namespace ndpipe::cli
