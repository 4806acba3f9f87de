#include <gtest/gtest.h>

#include <cstdlib>

#include "ndpipe/base/bytes.h"
#include "ndpipe/photo/importing/importing_fixture.h"
#include "ndpipe/photo/importing/scene.h"
#include "ndpipe/photo/importing/webdataset_sample.h"

namespace ndpipe::photo {
namespace {

namespace fs = std::filesystem;

class WebDatasetTest : public ImportingFixture {
 protected:
  std::string SourceOf(const std::vector<TarEntry>& entries, bool is_compressed = false) {
    WriteTar(file_, entries, is_compressed);
    return "webdataset:" + file_.string();
  }
  Error Refusal() { return Import(*store_, "webdataset:" + file_.string(), {}).error(); }

  const fs::path file_ = source_ / "shard-0.tar";
};

TEST_F(WebDatasetTest, SamplesGivePhotosWithTheirLabels) {
  const std::vector<TarEntry> entries = {{"train/", "", AE_IFDIR},
                                         {"train/0.cls", "7\n"},
                                         {"train/0.jpg", JpegOf(0)},
                                         {"train/0.npy", "not of interest"},
                                         {"train/1.JPG", JpegOf(1)},
                                         {"train/1.json", R"({"label": "cat", "width": 3})"},
                                         {"train/2.left.jpg", JpegOf(2)},
                                         {"train/2.right.png", JpegOf(3)},
                                         {"train/2.txt", " golden retriever \n"},
                                         {"train/3.image", JpegOf(4)},
                                         {"train/3.txt", "a dog,\nrunning on grass"}};
  for (const bool is_compressed : {false, true}) {
    store_ = OpenStore(is_compressed ? "gzip" : "plain");
    const auto source = SourceOf(entries, is_compressed);
    const auto report = Run(source);
    EXPECT_EQ(report.added, 5);
    EXPECT_EQ(report.failed, 0);
    EXPECT_EQ(report.source_labels, 4);
    using Labels = std::vector<std::string>;
    EXPECT_EQ(LabelsOf(1), Labels{"7"});
    EXPECT_EQ(LabelsOf(2), Labels{"cat"});
    EXPECT_EQ(LabelsOf(3), Labels{"golden retriever"});
    EXPECT_EQ(LabelsOf(4), Labels{"golden retriever"});
    EXPECT_EQ(LabelsOf(5), Labels{});
    EXPECT_EQ(AsText(*store_->Read(3)), JpegOf(2));
    EXPECT_EQ(Changes()[0].origin, "webdataset:shard-0.tar/train/0.jpg");
    const int64_t last = LastChange();
    EXPECT_EQ(Run(source).known, 5);
    EXPECT_EQ(LastChange(), last);
  }
}

TEST_F(WebDatasetTest, SharesCoverEverySampleOnceAndKeepItTogether) {
  std::vector<TarEntry> entries;
  for (int i = 0; i < 7; ++i) {
    entries.push_back({fmt::format("{}.cls", i), std::to_string(i)});
    entries.push_back({fmt::format("{}.jpg", i), JpegOf(i)});
  }
  const auto source = SourceOf(entries);
  int64_t labels = 0;
  for (int64_t share = 0; share < 3; ++share) {
    store_ = OpenStore("share" + std::to_string(share));
    const auto report = Run(source, {.share = share, .num_shares = 3});
    EXPECT_EQ(report.added, share == 0 ? 3 : 2);
    labels += report.source_labels;
  }
  EXPECT_EQ(labels, 7);
}

TEST_F(WebDatasetTest, WhatCannotBeUsedSaysWhyAndTheRestIsImported) {
  std::vector<TarEntry> entries = {
      {"a.jpg", ""},
      {"b.jpg", "this is no photo"},
      {"c.cls", std::string("7\n8\n9")},
      {"c.jpg", JpegOf(1)},
      {"d.jpg", JpegOf(2)},
      {"d.json", "{\"label\": "},
      {"e.jpg", JpegOf(3)},
      {"e.json", "{\"label\": [1]}"},
      {"f.json", std::string((size_t{1} << 20) + 1, ' ')},
      {"g.cls", "alone"},
      {"bad\xff.jpg", JpegOf(4)},
      {"link.jpg", "", AE_IFLNK, "/etc/passwd"},
      {"../../out.jpg", JpegOf(5)},
      {"._a.jpg", "hidden"},
      {std::string(5000, 'n') + ".jpg", JpegOf(6)},
  };
  const auto report = Run(SourceOf(entries));
  EXPECT_EQ(report.added, 4);  // c, d, e and the one that is called ../../out.jpg: a name, no place
  EXPECT_EQ(report.source_labels, 0);
  EXPECT_NE(reasons_["a.jpg"].find("empty"), std::string::npos);
  EXPECT_NE(reasons_["b.jpg"].find("no photo"), std::string::npos);
  EXPECT_NE(reasons_["c.cls"].find("short line"), std::string::npos);
  EXPECT_NE(reasons_["d.json"].find("no JSON"), std::string::npos);
  EXPECT_NE(reasons_["e.json"].find("neither text"), std::string::npos);
  EXPECT_NE(reasons_["f.json"].find("bytes"), std::string::npos);
  EXPECT_NE(reasons_["g.cls"].find("--sort=name"), std::string::npos);
  EXPECT_NE(reasons_["bad\\xff.jpg"].find("UTF-8"), std::string::npos);
  EXPECT_EQ(report.failed, 9);
  EXPECT_FALSE(fs::exists(folder_ / "out.jpg"));
}

TEST_F(WebDatasetTest, ASampleOfTooManyPhotosIsBounded) {
  std::vector<TarEntry> entries;
  const std::string jpeg = JpegOf(1);
  for (int i = 0; i < 70; ++i) entries.push_back({fmt::format("a.{}.jpg", i), jpeg});
  const auto report = Run(SourceOf(entries));
  EXPECT_EQ(report.added + report.known, 64);
  EXPECT_EQ(report.failed, 6);
}

TEST_F(WebDatasetTest, ACutArchiveKeepsWhatStoodBefore) {
  std::vector<TarEntry> entries;
  for (int i = 0; i < 5; ++i) {
    entries.push_back({fmt::format("{}.cls", i), "x"});
    entries.push_back({fmt::format("{}.jpg", i), JpegOf(i)});
  }
  const auto source = SourceOf(entries);
  const auto size = fs::file_size(file_);
  fs::resize_file(file_, size / 2);
  const Error error = Refusal();
  EXPECT_EQ(error.code, ErrorCode::kDataLoss);
  EXPECT_NE(error.message.find("before that are imported"), std::string::npos);
  const int64_t kept = Counts().photos;
  EXPECT_GE(kept, 1);
  EXPECT_LT(kept, 5);
  const auto report = Run(SourceOf(entries));
  EXPECT_EQ(report.known, kept);
  EXPECT_EQ(report.added, 5 - kept);
  EXPECT_EQ(report.source_labels, 5 - kept);
}

TEST_F(WebDatasetTest, AStoppedImportGoesOnLater) {
  std::vector<TarEntry> entries;
  for (int i = 0; i < 40; ++i) entries.push_back({fmt::format("{}.jpg", i), JpegOf(i)});
  const auto source = SourceOf(entries);
  std::stop_source stop;
  ImportOptions options{.stop = stop.get_token()};
  options.on_progress = [&](const ImportProgress&) { stop.request_stop(); };
  EXPECT_EQ(Import(*store_, source, options).error().code, ErrorCode::kCancelled);
  const int64_t kept = Counts().photos;
  EXPECT_LT(kept, 40);
  EXPECT_EQ(Run(source).added, 40 - kept);
}

TEST_F(WebDatasetTest, AbsurdAndForeignFilesAreRefused) {
  for (const std::string_view size : {"04540000000", "77777777777"}) {
    Write("shard-0.tar", TarHeaderOf("a.jpg", size) + std::string(4096, 'x'));
    EXPECT_EQ(Refusal().code, ErrorCode::kResourceExhausted);
  }
  Write("shard-0.tar", "no tar at all");
  EXPECT_EQ(Refusal().code, ErrorCode::kDataLoss);
  // A gzip bomb: little of it is photos.
  SourceOf({{"a.bin", std::string(size_t{80} << 20, '\0')}, {"b.jpg", JpegOf(1)}}, true);
  EXPECT_EQ(Refusal().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(Import(*store_, "webdataset:nothing.tar", {}).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(Import(*store_, "webdataset:", {}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(Import(*store_, "webdataset:x", {.in_place = true}).error().code,
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(Counts().photos, 0);
}

// NDPIPE_FUZZ_ROUNDS: how many; the default keeps the test short.
TEST_F(WebDatasetTest, DamagedArchivesAreRefusedOrHarmless) {
  const char* set = std::getenv("NDPIPE_FUZZ_ROUNDS");
  const int rounds = set != nullptr ? std::atoi(set) : 200;
  const std::vector<TarEntry> entries = {{"0.cls", "7"},
                                         {"0.jpg", "\xff\xd8\xff\xe0 as good as a photo"},
                                         {"1.jpg", "\xff\xd8\xff\xe0 another"},
                                         {"1.json", R"({"label": "cat"})"}};
  Random random(17);
  int refused = 0;
  for (int round = 0; round < rounds; ++round) {
    std::string bytes = WriteTar(file_, entries, round % 2 == 0);
    for (int i = 1 + random.Below(8); i > 0; --i) {
      const auto at = static_cast<size_t>(random.Below(static_cast<int>(bytes.size())));
      bytes[at] ^= static_cast<char>(1 << random.Below(8));
    }
    if (random.Below(4) == 0) {
      bytes.resize(static_cast<size_t>(random.Below(static_cast<int>(bytes.size()))));
    }
    Write("shard-0.tar", bytes);
    const auto report = Import(*store_, "webdataset:" + file_.string(), {});
    if (report) {
      EXPECT_LE(report->found, 4);
    } else {
      ++refused;
    }
  }
  EXPECT_GT(refused, 0);
}

TEST(WebDatasetSampleTest, NamesAreSplitAtTheFirstDotOfTheFile) {
  const auto split = [](std::string_view path) {
    const SampleName name = SplitSampleName(path);
    return std::string(name.key) + "|" + std::string(name.extension);
  };
  EXPECT_EQ(split("a.jpg"), "a|jpg");
  EXPECT_EQ(split("v1.2/a.left.jpg"), "v1.2/a|left.jpg");
  EXPECT_EQ(split("v1.2/a"), "v1.2/a|");
  EXPECT_EQ(split(""), "|");
}

TEST(WebDatasetSampleTest, LabelsAreShortLines) {
  const auto label = [](LabelKind kind, std::string_view text) {
    const auto parsed = ParseLabel(kind, AsBytes(text));
    return !parsed ? "error" : *parsed ? **parsed : "none";
  };
  EXPECT_EQ(LabelKindOf("CLS"), LabelKind::kClass);
  EXPECT_EQ(LabelKindOf("jpg"), std::nullopt);
  EXPECT_EQ(label(LabelKind::kClass, "12\n"), "12");
  EXPECT_EQ(label(LabelKind::kClass, ""), "error");
  EXPECT_EQ(label(LabelKind::kClass, "\xff\xfe"), "error");
  EXPECT_EQ(label(LabelKind::kText, ""), "none");
  EXPECT_EQ(label(LabelKind::kText, std::string(2000, 'a')), "none");
  EXPECT_EQ(label(LabelKind::kJson, R"({"label": 3})"), "3");
  EXPECT_EQ(label(LabelKind::kJson, R"({"label": 3.5})"), "error");
  EXPECT_EQ(label(LabelKind::kJson, R"({"label": ""})"), "error");
  EXPECT_EQ(label(LabelKind::kJson, R"({"label": null})"), "none");
  EXPECT_EQ(label(LabelKind::kJson, "[1, 2]"), "none");
  EXPECT_EQ(label(LabelKind::kJson, std::string(100'000, '[')), "error");
}

}  // namespace
}  // namespace ndpipe::photo
