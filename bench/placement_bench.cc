// Where the work is done: NDPipe against the publication's three placements on the server, for a
// fine-tune and for offline inference, over PipeStores and network speeds. Prints JSON lines.
//
//   ndpipe   features (fine-tune) or labels (offline inference) travel, by real daemons
//   srv-i    everything on the server, whose disk has the preprocessed photos: no network
//   srv-p    preprocessed photos travel to the server
//   srv-c    compressed sidecars (deflate, as published) travel to the server
//
// The server has one core, as the Tuner has, and each store one as far as there are enough. All
// photos are preprocessed before anything is timed. NDPipe's labels end durable in the Tuner's
// database, those of the server in its memory.
//
// usage: placement_bench [--folder DIR] [--model MODEL] [--photos N] [--epochs N] [--rounds N]
//                        [--stores N,N,…] [--speeds GBITS,GBITS,…]
// Needs root. --photos: of all stores together. What it writes lies below DIR (not given: here) and
// is removed at the end.
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "measure.h"
#include "ndpipe/base/bytes.h"
#include "ndpipe/base/clock.h"
#include "ndpipe/base/file.h"
#include "plan_cluster.h"
#include "server_placement.h"

namespace ndpipe::bench {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kServerPort = 25300;
constexpr double kServerSeconds = 600;
constexpr int kNumClasses = 10;

struct Flags {
  std::string folder = ".";
  std::string model = "efficientnet-lite0";
  int64_t num_photos = 480;
  int epochs = 30;
  int rounds = 3;
  std::vector<int> stores = {1, 2, 4, 8};
  std::vector<double> speeds = {0.1, 1, 10};
};

struct Figure {
  double seconds = 0;
  int64_t bytes = 0;  // over the Tuner's link, both directions
};
struct Series {
  std::vector<double> seconds;
  int64_t bytes = 0;
  void Add(const Figure& figure) {
    seconds.push_back(figure.seconds);
    bytes = figure.bytes;
  }
};

// Over all links of the host that this thread is on, but for loopback.
int64_t LinkBytes() {
  std::ifstream file("/proc/thread-self/net/dev");
  int64_t total = 0;
  for (std::string line; std::getline(file, line);) {
    const auto colon = line.find(':');
    if (colon == std::string::npos || line.substr(0, colon).ends_with("lo")) continue;
    std::istringstream fields(line.substr(colon + 1));
    int64_t received = 0, field = 0, sent = 0;
    fields >> received;
    for (int i = 0; i < 7; ++i) fields >> field;
    fields >> sent;
    total += received + sent;
  }
  return total;
}

// One number of stores: its daemons and packs.
class Site {
 public:
  static Result<Site> Make(const fs::path& folder, const Flags& flags, int num_stores) {
    PlanClusterOptions options;
    options.folder = folder;
    options.model = flags.model;
    options.num_stores = num_stores;
    options.photos_of_store = flags.num_photos / num_stores;
    options.num_classes = kNumClasses;
    options.store_flags = {"--no-feature-cache"};
    NDP_ASSIGN(auto cluster, PlanCluster::Start(options));
    Site site(folder, flags, num_stores, std::move(cluster));
    NDP_RETURN_IF_ERROR(site.MakePacks());
    NDP_RETURN_IF_ERROR(site.WarmUp());
    return site;
  }

  Status Measure(double speed) {
    NDP_RETURN_IF_ERROR(cluster_.SetSpeed(speed));
    std::map<std::pair<std::string, std::string>, Series> all;  // by work and placement
    for (int round = 0; round < flags_.rounds; ++round) {
      NDP_ASSIGN(const auto tuned, Finetune());
      all[{"finetune", "ndpipe"}].Add(tuned);
      NDP_ASSIGN(const auto labelled, Relabel());
      all[{"inference", "ndpipe"}].Add(labelled);
      for (const char* placement : {"srv-i", "srv-p", "srv-c"}) {
        NDP_ASSIGN(const auto server_tuned, Server(placement, training_photos_));
        all[{"finetune", placement}].Add(server_tuned);
        NDP_ASSIGN(const auto server_labelled, Server(placement, 0));
        all[{"inference", placement}].Add(server_labelled);
      }
    }
    for (const auto& [key, series] : all) {
      const auto& own = all.at({key.first, "ndpipe"});
      fmt::print(R"({{"bench":"placement","work":"{}","placement":"{}","stores":{},)"
                 R"("gbits_per_second":{},"photos":{},"epochs":{},"stores_share_cores":{},)"
                 R"("seconds":{:.3f},"link_bytes":{},"ratio_to_ndpipe":{:.2f},)"
                 R"("bytes_to_ndpipe":{:.2f}}})"
                 "\n",
                 key.first, key.second, num_stores_, speed, num_photos_, flags_.epochs,
                 cluster_.shares_cores(), Median(series.seconds), series.bytes,
                 MedianRatio(series.seconds, own.seconds),
                 static_cast<double>(series.bytes) / static_cast<double>(own.bytes));
    }
    return {};
  }

 private:
  Site(fs::path folder, const Flags& flags, int num_stores, PlanCluster cluster)
      : folder_(std::move(folder)),
        flags_(flags),
        num_stores_(num_stores),
        cluster_(std::move(cluster)) {}

  fs::path Pack(int store, PackForm form) const {
    return folder_ / fmt::format("pack-{}-{}", store, form == PackForm::kPixels ? "p" : "c");
  }

  Status MakePacks() {
    NDP_ASSIGN(const auto model, BenchModel::Open(flags_.model));
    for (int i = 0; i < num_stores_; ++i) {
      NDP_ASSIGN(const auto store, photo::PhotoStore::Open(cluster_.store_folder(i)));
      const auto counts =
          store->WithCatalog([](photo::Catalog& catalog) { return catalog.Counts(); });
      if (!counts) return std::unexpected(counts.error());
      photos_of_store_.push_back(counts->photos);
      num_photos_ += counts->photos;
      for (const auto form : {PackForm::kPixels, PackForm::kDeflate}) {
        NDP_ASSIGN([[maybe_unused]] const int64_t bytes,
                   WritePack(*store, model.backbone().manifest.preprocess, form, Pack(i, form)));
      }
    }
    return {};
  }

  // Engines are built, sidecars made; how many photos a fine-tune trains on is known.
  Status WarmUp() {
    version_ = 1;
    NDP_ASSIGN([[maybe_unused]] const auto labelled, Relabel());
    NDP_ASSIGN([[maybe_unused]] const auto tuned, Finetune());
    NDP_ASSIGN([[maybe_unused]] const auto served, Server("srv-i", 0));
    return {};
  }

  Result<Figure> Finetune() {
    rpc::FinetuneRequest request;
    request.num_runs = 1;
    request.min_stores = num_stores_;
    request.epochs = flags_.epochs;
    request.relabel = false;
    const int64_t before = LinkBytes();
    NDP_ASSIGN(const int64_t id, cluster_.tuner().StartFinetune(request));
    NDP_ASSIGN(const auto job, cluster_.WaitForJob(id));
    const auto report = json::parse(job.report_json, nullptr, false);
    if (!report.is_object() || !report.contains("overall_seconds")) {
      return Fail(ErrorCode::kInternal, "a fine-tune came without its report");
    }
    training_photos_ = report.value("training_photos", int64_t{0});
    version_ = job.version;
    return Figure{report["overall_seconds"].get<double>(), LinkBytes() - before};
  }

  // With the version that was made last, in which no photo has an outcome yet.
  Result<Figure> Relabel() {
    const int64_t before = LinkBytes();
    rpc::RelabelRequest request;
    request.version = version_;
    NDP_ASSIGN(const int64_t id, cluster_.tuner().StartRelabel(request));
    NDP_ASSIGN(const auto job, cluster_.WaitForJob(id));
    if (job.done != num_photos_ || job.failed != 0) {
      return Fail(ErrorCode::kInternal,
                  fmt::format("{} of {} photos were labelled", job.done, num_photos_));
    }
    return Figure{1e-6 * static_cast<double>(job.finished_us - job.started_us),
                  LinkBytes() - before};
  }

  Result<Figure> Server(const std::string& placement, int64_t training_photos) {
    const PackForm form = placement == "srv-c" ? PackForm::kDeflate : PackForm::kPixels;
    const bool is_remote = placement != "srv-i";
    const fs::path log = folder_ / "server.log";
    std::error_code ignored;
    fs::remove(log, ignored);
    auto words = cluster_.CommandOn(0);
    const auto add = [&](std::initializer_list<std::string> more) {
      words.insert(words.end(), more.begin(), more.end());
    };
    add({SelfPath(), "--serve", placement, "--model", flags_.model, "--cache",
         (folder_ / "compiled").string(), "--training", std::to_string(training_photos), "--epochs",
         std::to_string(flags_.epochs)});
    for (int i = 0; i < num_stores_; ++i) {
      add({"--sender-photos", std::to_string(photos_of_store_[static_cast<size_t>(i)])});
      if (!is_remote) add({"--pack", Pack(i, form).string()});
    }
    NDP_ASSIGN(auto server, cli::ChildProcess::Start("/usr/bin/env", words, log));
    std::vector<cli::ChildProcess> senders;
    int64_t before = LinkBytes();
    if (is_remote) {
      NDP_ASSIGN([[maybe_unused]] const auto ready, WaitForLine(server, log, "ready"));
      before = LinkBytes();
      for (int i = 0; i < num_stores_; ++i) {
        words = cluster_.CommandOn(i + 1);
        add({SelfPath(), "--send", Pack(i, form).string()});
        NDP_ASSIGN(auto sender,
                   cli::ChildProcess::Start("/usr/bin/env", words, folder_ / "senders.log"));
        senders.push_back(std::move(sender));
        // The server tells senders apart by the order in which they come.
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
      }
    }
    NDP_ASSIGN(const auto result, WaitForLine(server, log, "seconds"));
    return Figure{result.at("seconds").get<double>(), LinkBytes() - before};
  }

  static std::string SelfPath() {
    std::error_code ignored;
    return fs::read_symlink("/proc/self/exe", ignored).string();
  }

  static Result<json> WaitForLine(cli::ChildProcess& server, const fs::path& log,
                                  const std::string& key) {
    const Stopwatch watch;
    while (watch.Seconds() < kServerSeconds) {
      const bool was_running = server.IsRunning();
      std::ifstream file(log);
      std::string all;
      for (std::string line; std::getline(file, line);) {
        auto value = json::parse(line, nullptr, false);
        if (value.is_object() && value.contains(key)) return value;
        all += line + "\n";
      }
      if (!was_running) return Fail(ErrorCode::kAborted, "the server ended early:\n" + all);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return Fail(ErrorCode::kDeadlineExceeded, "the server did not end in time");
  }

  fs::path folder_;
  Flags flags_;
  int num_stores_ = 0;
  PlanCluster cluster_;
  std::vector<int64_t> photos_of_store_;
  int64_t num_photos_ = 0;
  int64_t training_photos_ = 0;
  int64_t version_ = 0;  // made last
};

Status Run(const Flags& flags) {
  for (const int num_stores : flags.stores) {
    const BenchFolder folder(flags.folder, fmt::format("placement_bench.{}", num_stores));
    // Each number of stores in a process of its own: a thread that is on a host stays there.
    const pid_t pid = ::fork();
    if (pid == 0) {
      const auto measure = [&]() -> Status {
        NDP_ASSIGN(auto site, Site::Make(folder.path(), flags, num_stores));
        for (const double speed : flags.speeds) NDP_RETURN_IF_ERROR(site.Measure(speed));
        return {};
      };
      const Status measured = measure();
      if (!measured) fmt::print(stderr, "placement_bench: {}\n", measured.error().message);
      std::fflush(stdout);
      ::_exit(measured ? 0 : 1);
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
      return Fail(ErrorCode::kAborted, fmt::format("{} stores could not be measured", num_stores));
    }
  }
  return {};
}

int RunCommandLine(int argc, char** argv) {
  Flags flags;
  std::string serve, send, cache;
  ServeOptions server;
  std::vector<std::string> packs;
  CLI::App app("NDPipe against the same work on the server.", "placement_bench");
  app.add_option("--folder", flags.folder, "what it writes lies below it");
  app.add_option("--model", flags.model, "a name or path");
  app.add_option("--photos", flags.num_photos, "of all stores")->check(CLI::Range(40, 1000000));
  app.add_option("--epochs", flags.epochs)->check(CLI::Range(1, 1000));
  app.add_option("--rounds", flags.rounds)->check(CLI::Range(1, 100));
  app.add_option("--stores", flags.stores)->delimiter(',');
  app.add_option("--speeds", flags.speeds, "Gbit/s")->delimiter(',');
  // The parts that it starts of itself.
  app.add_option("--serve", serve)->group("");
  app.add_option("--send", send)->group("");
  app.add_option("--cache", cache)->group("");
  app.add_option("--training", server.training_photos)->group("");
  app.add_option("--sender-photos", server.photos_of_sender)->group("");
  app.add_option("--pack", packs)->group("");
  CLI11_PARSE(app, argc, argv);
  const auto end = [](const ndpipe::Status& status) {
    if (status) return 0;
    fmt::print(stderr, "placement_bench: {}\n", status.error().message);
    return 1;
  };
  if (!send.empty()) return end(SendPack(LimitedNetwork::AddressOf(0), kServerPort, send));
  if (!serve.empty()) {
    server.model = flags.model;
    server.cache_folder = cache;
    server.form = serve == "srv-c" ? PackForm::kDeflate : PackForm::kPixels;
    server.listen_host = LimitedNetwork::AddressOf(0);
    server.port = kServerPort;
    server.num_senders = serve == "srv-i" ? 0 : static_cast<int>(server.photos_of_sender.size());
    server.local_packs.assign(packs.begin(), packs.end());
    server.num_classes = kNumClasses;
    server.epochs = flags.epochs;
    return end(Serve(server));
  }
  return ndpipe::bench::Main("placement_bench", [&] { return ndpipe::bench::Run(flags); });
}

}  // namespace
}  // namespace ndpipe::bench

int main(int argc, char** argv) { return ndpipe::bench::RunCommandLine(argc, argv); }
