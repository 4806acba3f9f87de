// Feeds damaged copies of archives to the importers that read tars: importing_fuzz ROUNDS SEED
// FILE... . Built with sanitizers, it finds what the tests' few rounds do not. Prints how many
// imports ended well, and with how many photos.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <random>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/file.h"
#include "ndpipe/photo/importing/importer.h"

namespace ndpipe::photo {
namespace {

constexpr size_t kBlock = 512;
constexpr size_t kMaxArchiveBytes = size_t{256} << 20;

// Tars are blocks, and their headers lie at the start of one: half of the damage goes there.
void Damage(std::vector<uint8_t>& bytes, std::mt19937_64& random) {
  for (uint64_t i = 1 + random() % 8; i > 0; --i) {
    const size_t block = random() % (bytes.size() / kBlock + 1) * kBlock;
    const size_t at = random() % 2 == 0 ? block + random() % kBlock : random();
    bytes[at % bytes.size()] = static_cast<uint8_t>(random());
  }
  if (random() % 4 == 0) bytes.resize(1 + random() % bytes.size());
}

Status Fuzz(int rounds, std::mt19937_64& random, std::span<char*> files,
            const std::filesystem::path& folder) {
  NDP_ASSIGN(const auto store, PhotoStore::Open(folder / "store"));
  const auto damaged = folder / "damaged.tar";
  int64_t num_tried = 0;
  int64_t num_imported = 0;
  int64_t num_photos = 0;
  for (const char* file : files) {
    NDP_ASSIGN(const auto whole, ReadFile(file, kMaxArchiveBytes));
    for (int round = 0; round < rounds && !whole.empty(); ++round) {
      auto bytes = whole;
      Damage(bytes, random);
      std::ofstream(damaged, std::ios::binary) << AsText(bytes);
      for (const char* kind : {"webdataset:", "cifar100:"}) {
        ++num_tried;
        const auto report = Import(*store, kind + damaged.string(), {});
        if (!report) continue;
        ++num_imported;
        num_photos += report->added + report->known;
      }
    }
  }
  fmt::print("{} tried, {} imported, {} photos\n", num_tried, num_imported, num_photos);
  return {};
}

}  // namespace
}  // namespace ndpipe::photo

int main(int argc, char** argv) {
  if (argc < 4) {
    fmt::print(stderr, "usage: importing_fuzz ROUNDS SEED FILE...\n");
    return 2;
  }
  std::mt19937_64 random(static_cast<uint64_t>(std::atoll(argv[2])));
  const auto folder =
      std::filesystem::temp_directory_path() / fmt::format("importing_fuzz.{}", ::getpid());
  const auto files = std::span(argv, static_cast<size_t>(argc)).subspan(3);
  const auto done = ndpipe::photo::Fuzz(std::atoi(argv[1]), random, files, folder);
  std::filesystem::remove_all(folder);
  if (!done) fmt::print(stderr, "importing_fuzz: {}\n", done.error().message);
  return done ? 0 : 1;
}
