#include "ndpipe/cli/version_commands.h"

#include <fmt/format.h>

#include "ndpipe/cli/output.h"

namespace ndpipe::cli {
namespace {

struct Flags {
  std::shared_ptr<const RemoteFlags> remote;
  int64_t version = 0;
  int64_t second = 0;
  int64_t num_examples = 10;
  std::string onnx_file;
  bool no_wait = false;
};

void PrintServed(const rpc::ServeReport& report) {
  fmt::print("model version {} serves: {} photos labelled, {} failed, {} pending\n", report.version,
             report.labelled, report.failed, report.pending);
  if (report.job == 0) return;
  fmt::print(
      "photos that came since its relabel keep their labels until relabel job {0} has ended; "
      "follow it with: ndpipe jobs wait {0}\n",
      report.job);
}

// There was no complete set of labels to switch to: the relabel that makes one is the way.
Status WaitForRelabel(rpc::Operator& tuner, const Flags& flags, rpc::ServeReport& report,
                      const std::stop_token& stop) {
  fmt::print(stderr, "model version {} has no complete set of labels: relabel job {} makes it\n",
             report.version, report.job);
  if (flags.no_wait) return {};
  NDP_ASSIGN(const auto job, WaitForJob(tuner, report.job, "relabel", stop));
  NDP_RETURN_IF_ERROR(CheckJob(job));
  NDP_ASSIGN(const auto status, tuner.GetStatus());
  report.serves = status.serving_version == report.version;
  report.labelled = status.labelled;
  report.failed = status.failed;
  report.pending = status.pending;
  report.job = 0;
  return {};
}

// version 0: the one before.
Status Serve(const Flags& flags, const std::stop_token& stop) {
  NDP_ASSIGN(const auto tuner, Connect(*flags.remote));
  NDP_ASSIGN(auto report,
             flags.version == 0 ? tuner->Rollback() : tuner->ServeVersion(flags.version));
  if (!report.serves) NDP_RETURN_IF_ERROR(WaitForRelabel(*tuner, flags, report, stop));
  if (flags.remote->json) {
    PrintJson(ToJson(report));
  } else if (report.serves) {
    PrintServed(report);
  } else {
    fmt::print("relabel job {0} is queued; follow it with: ndpipe jobs wait {0}\n", report.job);
  }
  return {};
}

Status Drop(const Flags& flags) {
  NDP_ASSIGN(const auto tuner, Connect(*flags.remote));
  NDP_ASSIGN(const int64_t outcomes, tuner->DropVersion(flags.version));
  if (flags.remote->json) {
    PrintJson(Json{{"version", flags.version}, {"outcomes", outcomes}});
  } else {
    fmt::print("model version {} is retired: its labels of {} photos are dropped\n", flags.version,
               outcomes);
  }
  return {};
}

std::string Share(int64_t part, int64_t whole) {
  if (whole == 0) return "-";
  return fmt::format("{} ({:.2f} %)", part,
                     100.0 * static_cast<double>(part) / static_cast<double>(whole));
}

std::string NameOr(const std::string& label) { return label.empty() ? "(failed)" : label; }

void PrintAccuracy(const char* what, const rpc::AccuracyComparison& accuracy) {
  if (accuracy.photos == 0) return;
  fmt::print("Right on {} {}: {} and {}\n", accuracy.photos, what,
             Share(accuracy.first_right, accuracy.photos),
             Share(accuracy.second_right, accuracy.photos));
}

void PrintComparison(const rpc::VersionComparison& comparison, const Flags& flags) {
  const int64_t both = comparison.same + comparison.changed;
  fmt::print("Photos with an outcome in versions {} and {}: {}\n", flags.version, flags.second,
             both);
  fmt::print("Same label: {}\nOther label: {}\n", Share(comparison.same, both),
             Share(comparison.changed, both));
  fmt::print("Only in version {}: {}\nOnly in version {}: {}\n", flags.version,
             comparison.only_first, flags.second, comparison.only_second);
  PrintAccuracy("photos with a user's label", comparison.all);
  PrintAccuracy("of them in the held-out and test parts", comparison.unseen);
  std::vector<std::vector<std::string>> rows = {{"label", fmt::format("version {}", flags.version),
                                                 fmt::format("version {}", flags.second), "both"}};
  for (const auto& row : comparison.classes) {
    rows.push_back({row.label, std::to_string(row.first), std::to_string(row.second),
                    std::to_string(row.both)});
  }
  PrintTable(rows);
  for (const auto& photo : comparison.examples) {
    fmt::print("{}: {} ({:.2f}) → {} ({:.2f}){}\n", photo.path, NameOr(photo.first),
               photo.first_confidence, NameOr(photo.second), photo.second_confidence,
               photo.user_label.empty() ? "" : ", a user says " + photo.user_label);
  }
}

Status Compare(const Flags& flags) {
  NDP_ASSIGN(const auto tuner, Connect(*flags.remote));
  NDP_ASSIGN(const auto comparison,
             tuner->CompareVersions(flags.version, flags.second, flags.num_examples));
  if (flags.remote->json) {
    PrintJson(ToJson(comparison));
  } else {
    PrintComparison(comparison, flags);
  }
  return {};
}

Status Export(const Flags& flags) {
  NDP_ASSIGN(const auto tuner, Connect(*flags.remote));
  NDP_RETURN_IF_ERROR(tuner->ExportModel(flags.version, flags.onnx_file));
  std::error_code error;
  const auto size = static_cast<int64_t>(std::filesystem::file_size(flags.onnx_file, error));
  if (flags.remote->json) {
    PrintJson(Json{{"version", flags.version}, {"file", flags.onnx_file}, {"bytes", size}});
  } else {
    fmt::print("model version {} is in {}, {}\n", flags.version, flags.onnx_file,
               FormatBytes(size));
  }
  return {};
}

}  // namespace

void DeclareVersionCommands(CLI::App& models, const std::shared_ptr<const RemoteFlags>& remote,
                            Invocation& invocation) {
  auto flags = std::make_shared<Flags>();
  flags->remote = remote;
  const auto run_serve = [flags, &invocation] {
    invocation.run = [flags, &invocation] { return Serve(*flags, invocation.stop); };
  };
  CLI::App* serve = models.add_subcommand(
      "serve",
      "switch readers to a version: at once if its labels are complete, else by a relabel");
  serve->add_option("VERSION", flags->version, "its number")
      ->required()
      ->check(CLI::PositiveNumber);
  CLI::App* rollback =
      models.add_subcommand("rollback", "switch readers back to the version that they saw before");
  for (CLI::App* command : {serve, rollback}) {
    command->add_flag("--no-wait", flags->no_wait,
                      "if it takes a relabel, return as soon as that is queued");
    command->callback(run_serve);
  }
  CLI::App* drop = models.add_subcommand(
      "drop", "drop the labels of a version that is not serving; a relabel makes them again");
  drop->add_option("VERSION", flags->version, "its number")->required()->check(CLI::PositiveNumber);
  drop->callback([flags, &invocation] { invocation.run = [flags] { return Drop(*flags); }; });
  CLI::App* compare = models.add_subcommand(
      "compare", "what two versions say of the photos that both have labelled");
  compare->add_option("A", flags->version, "a version's number")
      ->required()
      ->check(CLI::PositiveNumber);
  compare->add_option("B", flags->second, "another's")->required()->check(CLI::PositiveNumber);
  compare
      ->add_option("--examples", flags->num_examples, "photos whose label changed, at most so many")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  compare->callback([flags, &invocation] { invocation.run = [flags] { return Compare(*flags); }; });
  CLI::App* exporting = models.add_subcommand(
      "export", "write a version as one ONNX file: body, trained tail, class names");
  exporting->add_option("VERSION", flags->version, "its number")
      ->required()
      ->check(CLI::PositiveNumber);
  exporting->add_option("FILE", flags->onnx_file, "the ONNX file to write")->required();
  exporting->callback(
      [flags, &invocation] { invocation.run = [flags] { return Export(*flags); }; });
}

}  // namespace ndpipe::cli
