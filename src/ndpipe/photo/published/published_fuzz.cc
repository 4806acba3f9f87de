// Feeds files, and damaged copies of them, to the readers of preprocessed binaries and of zips:
// published_fuzz SIDE ROUNDS SEED FILE... . Built with sanitizers, it finds what the tests' few
// rounds do not. SIDE: the binaries' height and width. Prints what was read.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <random>
#include <vector>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/file.h"
#include "ndpipe/photo/published/preprocessed.h"
#include "ndpipe/photo/published/zip_archive.h"

namespace ndpipe::photo {
namespace {

constexpr size_t kMaxBytes = size_t{64} << 20;
constexpr size_t kEdgeBytes = 1024;  // headers stand near the start, a zip's directory near the end

struct Counts {
  int64_t tried = 0;
  int64_t decoded = 0;
  int64_t entries = 0;
};

void Damage(std::vector<uint8_t>& bytes, std::mt19937_64& random) {
  for (uint64_t i = random() % 8; i > 0; --i) {
    const size_t reach = random() % 2 == 0 ? std::min(bytes.size(), kEdgeBytes) : bytes.size();
    const size_t at = random() % reach;
    bytes[random() % 2 == 0 ? at : bytes.size() - 1 - at] = static_cast<uint8_t>(random());
  }
  if (random() % 4 == 0) bytes.resize(1 + random() % bytes.size());
}

void TryBinary(std::span<const uint8_t> bytes, int side, Counts& counts) {
  (void)TellElement(bytes, side, side);
  for (const Element element : {Element::kUint8, Element::kFloat32}) {
    const PreprocessedForm form{
        .height = side, .width = side, .element = element, .layout = Layout::kChw};
    std::vector<uint8_t> out(form.num_bytes());
    if (DecodePreprocessed(bytes, form, out)) ++counts.decoded;
  }
}

void TryZip(std::span<const uint8_t> bytes, const std::filesystem::path& file, Counts& counts) {
  std::ofstream(file, std::ios::binary) << AsText(bytes);
  const auto zip = ZipArchive::Open(file);
  if (!zip) return;
  for (int64_t entry = 0; entry < std::min<int64_t>(zip->num_entries(), 20); ++entry) {
    (void)zip->NameOf(entry);
    (void)zip->ReadHead(entry, 64);
    if (zip->Read(entry, kMaxBytes)) ++counts.entries;
  }
}

}  // namespace
}  // namespace ndpipe::photo

int main(int argc, char** argv) {
  if (argc < 5) {
    fmt::print(stderr, "usage: published_fuzz SIDE ROUNDS SEED FILE...\n");
    return 2;
  }
  const int side = std::atoi(argv[1]);
  const int rounds = std::atoi(argv[2]);
  std::mt19937_64 random(static_cast<uint64_t>(std::atoll(argv[3])));
  const auto damaged =
      std::filesystem::temp_directory_path() / fmt::format("published_fuzz.{}", ::getpid());
  ndpipe::photo::Counts counts;
  for (int file = 4; file < argc; ++file) {
    const auto whole = ndpipe::ReadFile(argv[file], size_t{64} << 20);
    if (!whole || whole->empty()) continue;
    for (int round = 0; round < rounds; ++round) {
      auto bytes = *whole;
      ndpipe::photo::Damage(bytes, random);
      ++counts.tried;
      ndpipe::photo::TryBinary(bytes, side, counts);
      ndpipe::photo::TryZip(bytes, damaged, counts);
    }
  }
  std::filesystem::remove(damaged);
  fmt::print("{} tried, {} decoded, {} entries of zips read\n", counts.tried, counts.decoded,
             counts.entries);
  return 0;
}
