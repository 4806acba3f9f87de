#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <string>

#include "ndpipe/cli/command.h"
#include "ndpipe/pipestore/codec_setting.h"
#include "ndpipe/pipestore/pipestore.h"

namespace ndpipe::cli {
namespace {

struct Flags {
  int port = rpc::kDefaultPort;
  std::string store;
  std::string tuner;
  std::string tuner_ip;
  std::string device = "cpu";
  int threads = 0;
  bool insecure = false;
  bool no_cache = false;
  std::string sidecar_codec = "auto";
  std::string feature_cache_bytes;
  std::string sidecar_cache_bytes;
  bool no_feature_cache = false;
};

// Of what CLI::AsSizeValue has made of the flag; empty: nothing.
std::optional<int64_t> BytesOf(const std::string& flag) {
  if (flag.empty()) return std::nullopt;
  return static_cast<int64_t>(
      std::min<uint64_t>(std::stoull(flag), std::numeric_limits<int64_t>::max()));
}

Status Run(const Flags& flags, const std::stop_token& stop) {
  const std::string host = !flags.tuner.empty()      ? flags.tuner
                           : !flags.tuner_ip.empty() ? flags.tuner_ip
                                                     : "127.0.0.1";
  pipestore::PipeStoreOptions options;
  NDP_ASSIGN(options.tuner, rpc::ParseAddress(host, flags.port));
  options.store = flags.store;
  options.security.insecure = flags.insecure;
  options.device = flags.device;
  options.num_threads = flags.threads;
  options.cache_features = !flags.no_cache && !flags.no_feature_cache;
  options.cache_sidecars = !flags.no_cache;
  NDP_ASSIGN(options.sidecar_codec, pipestore::CodecSetting::Parse(flags.sidecar_codec));
  options.max_feature_bytes = BytesOf(flags.feature_cache_bytes);
  options.max_sidecar_bytes = BytesOf(flags.sidecar_cache_bytes);
  return pipestore::RunPipeStore(options, stop);
}

}  // namespace

void DeclarePipestore(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand(
      "pipestore", "the storage server's daemon: labels and extracts next to the photos");
  command->add_option("PORT", flags->port, "the Tuner's port")
      ->check(CLI::Range(1, 65535))
      ->capture_default_str();
  AddSetting(*command, "--store", flags->store, "the photo store's folder")->required();
  AddSetting(*command, "--tuner", flags->tuner, "the Tuner's HOST or HOST:PORT");
  command
      ->add_option("--tuner-ip", flags->tuner_ip,
                   "the Tuner's host, where --tuner is not given; 127.0.0.1 without both")
      ->envname("TUNER_IP");
  AddSetting(*command, "--device", flags->device, "cpu or cuda:N")->capture_default_str();
  AddSetting(*command, "--threads", flags->threads, "cores to use; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_flag("--insecure", flags->insecure, "allow a Tuner on another machine without TLS");
  command->add_flag("--no-cache", flags->no_cache, "keep neither sidecars nor features");
  AddSetting(*command, "--sidecar-codec", flags->sidecar_codec,
             "auto (measured once), raw, lz4, zstd or deflate")
      ->capture_default_str();
  AddSetting(
      *command, "--feature-cache-bytes", flags->feature_cache_bytes,
      "at most so much of cached features, such as 20GB: those of the backbone that was used "
      "longest ago go first; no bound if not given")
      ->transform(CLI::AsSizeValue(false));
  AddSetting(*command, "--sidecar-cache-bytes", flags->sidecar_cache_bytes, "the same of sidecars")
      ->transform(CLI::AsSizeValue(false));
  command->add_flag("--no-feature-cache", flags->no_feature_cache,
                    "keep sidecars, but no features: each job computes them anew");
  command->callback([flags, &invocation] {
    invocation.run = [flags, &invocation] { return Run(*flags, invocation.stop); };
  });
}

}  // namespace ndpipe::cli
