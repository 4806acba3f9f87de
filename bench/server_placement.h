// The publication's baselines: photos travel to the training server, which does everything itself.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/photo/image/preprocess.h"
#include "ndpipe/photo/store.h"

namespace ndpipe::bench {

// How a photo travels: as its preprocessed pixels (SRV-P, and SRV-I from the server's own disk), or
// as its compressed sidecar (SRV-C).
enum class PackForm { kPixels, kDeflate };

// A pack: the photos of a store one after the other, each 4 bytes of length (little-endian) and as
// many bytes. Made before anything is timed, as the published system preprocesses at upload.
Result<int64_t> WritePack(photo::PhotoStore& store, const photo::PreprocessSpec& spec,
                          PackForm form,
                          const std::filesystem::path& file);  // its bytes

// The store's part: sends the pack to the server once that says so, and waits until it has it all.
Status SendPack(const std::string& host, int port, const std::filesystem::path& file);

struct ServeOptions {
  std::string model;
  std::filesystem::path cache_folder;  // for compiled engines
  PackForm form = PackForm::kPixels;
  std::string listen_host;
  int port = 0;
  int num_senders = 0;                             // 0: local_packs
  std::vector<std::filesystem::path> local_packs;  // SRV-I
  std::vector<int64_t> photos_of_sender;           // in the order of connecting or of the packs
  int num_classes = 0;
  int64_t training_photos = 0;  // 0: offline inference instead of a fine-tune
  int epochs = 0;
};

// The server's part: prints {"ready":true} when it listens, and at the end the seconds from the
// first byte asked for to the trained tail, or to the last photo's class.
Status Serve(const ServeOptions& options);

}  // namespace ndpipe::bench
